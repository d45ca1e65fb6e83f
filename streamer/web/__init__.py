"""The pages of a worker: health, metrics, tables, and those of the app.

    server.py     the socket; serving.py: HTTP in the worker's own loop
    site.py       which path leads where
    view.py       what is shown: a worker as it is seen from here
    health.py     /livez, /healthz, /readyz
    metrics.py    /metrics; what is told there: figures.py
    tables.py     /table/NAME/KEY, here or at the worker that has it; the key: keys.py
    peers.py      the other workers, and how they are asked
    pages.py      @app.page
    index.py      /
    answers.py    what is answered, as JSON

Nothing is counted or kept for these pages: each looks when it is asked. A worker does not
know that anyone looks.
"""
