"""The servers' health as far as this client knows: whether one is worth asking, is worth waiting for, has room.

`ServerHealth` (`server`) is one server: it takes facts and answers questions. `Health` (`health`) is the four of them,
and what is known about them together. Both are pure: the clock and the lock are passed in. `Lines` creates them and
logs what changes; the layers above reach them through `Cluster`.

| state of one server | changed by | told by |
|---|---|---|
| up or down; why; next trial | a complete answer; a failure, quick or not | `Exchange`, `ask_one`, `connect` |
| | a connection hung up, an answer overdue, a new address | `Lines` |
| | a trial has begun | `Exchange`, `Pinger`, `Cluster.recheck` |
| how often it came back | the first answer after it was down | `Exchange`, `ask_one` |
| full: when to ask again | an answer that says so | `Exchange` |
| spared in the log | it kept a caller waiting; it answered; it is needed | `rounds`, `settle`; `lead` |
| spared with data | the same | `transport`, `download`, `holders`, `small_pieces` |
| what it did wrong | an answer that is not what it should be | `Exchange`, `ask_one`, `download` |

| state of all together | changed by | told by |
|---|---|---|
| excused since when | so many owe an answer that it is not they that fail; | `Exchange` (by `slowness`) |
| | this process stood still | `Exchange` |
| hurried since when | a person does not want to wait | `Cluster.hurry` |
| how long is usual (`pace`) | an answer came after t seconds | `driving`, and all that move data |

| question | asked by |
|---|---|
| May it be asked now? (`refusal`, `claim`) | `Exchange`, `Pinger`, `Cluster.recheck` |
| Is it believed to answer? (`usable`) | code that chooses servers: the log, data, upkeep; a mount, for `[incomplete]` |
| Is it waited for where others are enough? (`Spared`) | `rounds`, `reading`, `settle`; all that move data |
| Is it waited for where it is needed? (`are_slow`, `excused_at`) | `Exchange`, `driving`, `transport`, the lease |
| How long, before another one is asked too? (`Pace`) | `driving`; all that move data |
| Can it take data? (`full`) | `upload`; `Pinger`, to ask it again |
| What do people want to know? (`why_missing`, `faults`, `comebacks`) | `dfc status`, `ServerRegister`, the healer |

Not here, since it ends with a request or a round: how the deadline of a call moves (`Exchange`), which attempt lags in
a race (`dfsfuse.data.race`), which servers had no room for a batch (`LogState.full`), how long `connect` waits.

Sparing is separate for each kind of work. A server whose disk is slow with pieces may be quick with the log; and if a
moment's silence in the log sent pieces elsewhere, they would have to be moved back afterwards. All that a client does
in one kind of work shares what it knows (docs/decisions/0047).
"""
