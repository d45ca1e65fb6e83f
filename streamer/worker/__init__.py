"""What runs an app: one process is one member of its group, one transactional producer.

    worker.py       starts everything, and stops it in order
    pump.py         fetches records and hands them to feeds; pauses what is too far ahead
    feed.py         lanes: records of one partition on their way to one agent
    crew.py         the actors of one agent, and what forwards records for `group_by`
    actor.py        runs the agent's function; what becomes of a record that fails
    transaction.py  outputs, changelogs and positions in one transaction
    assignment.py   partitions come and go: positions, state, lanes
    task.py         one partition number: the partitions of tables that live with it
    positions.py    how far each agent is, as noted beside a committed offset
    globals.py      global tables: all partitions, as this worker follows them
    outside.py      sends that belong to no record; asking agents
    own_broker.py   the broker of an app that names none: started again if it has gone
    client_only.py  sends and asks, and processes nothing: for commands
    timers.py       functions that run at times
    counters.py     what it has done; standing.py: what it has in hand
    watch.py        does the loop turn, does every agent get on

Everything runs on one loop, but for what blocks, which has a thread of its own.
"""
