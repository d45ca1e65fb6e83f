"""What `benchmarks/framework.py` runs and compares.

Each in a process of its own, told by JSON what to do, and measuring itself:

    app.py       the framework: agents as a user writes them, per event and by batch
    loop.py      the same by hand: confluent-kafka, orjson, rocksdict
    ends.py      who sends records at a pace, and who receives them
    meter.py     CPU and time as records go by; memory; what they say at the end
    sampler.py   which lines the time goes to (`--profile`)

In the process that compares:

    records.py    the input, and what must come of it
    processes.py  those processes, started and listened to
    checks.py     what came of it: a wrong result is a failed benchmark
    measures.py   each workload, once, of one contender
    table.py      from samples to a table
"""
