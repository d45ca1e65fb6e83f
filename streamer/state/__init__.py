"""What tables keep, on disk or in memory, and how it is brought back.

`store.py` says what a store is; `rocksdb.py` keeps one on disk. `identity.py` judges
whether what is found may be used, `opening.py` acts on that. `changelog.py` looks after the
topics that hold every change, `recovery.py` reads them into stores. `slots.py` gives a
worker a folder of its own, `unowned.py` clears out of it what has gone elsewhere.
`table_partition.py` is what a table sees, `window_partition.py` the same with windows.
"""
