"""Commands of an app: `streamer -A shop COMMAND`, `python shop.py COMMAND`.

target.py       which app is meant, its settings, and a broker for as long as it takes
loading.py      the App that `-A` names, or why there is none
worker.py       run it      processes.py  run it several times
progress.py     what a start or a recovery that takes long has come to
send.py, agents.py, tables.py, table.py, config.py, reset.py     one command each
own.py          commands that the app declares
"""
