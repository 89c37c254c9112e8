#!/usr/bin/env python3
"""Every interleaving of a small map: the gate, stamps, replacement, deletion, links, hazards.

A world is one chain: a root bucket with a few slots and, after a link, a child. Processes run the steps
of src/map, one shared access at a time (sequential consistency); a collector may free any retired
record that nobody protects, and an allocation may reuse a freed one at the same address. Checked in
every final state: the answers are those of some order of the operations, no record that was
freed is reachable, no key is there twice. Checked in every state: nobody reads a freed record under
protection; and, with any one process standing still for ever, the others come to their end.

Bugs planted on purpose must each be found: a model that cannot fail shows nothing.
Output is TAP. Progress, memory and weak orders are not modelled.
"""
import sys
import time

EMPTY, RECORD, LINK = 'E', 'R', 'L'


class Broken(Exception):
    pass


class World:
    """Shared memory as plain tuples and dicts; `log` is the history of calls and answers."""

    def __init__(self, slots, initial, bug):
        self.gate = (1, None)  # version, (process, op, slot) or None
        self.slots = [(EMPTY, 0)] * slots
        self.root = slots
        self.records = {}  # address -> [key, value, state]; state: L, D or an address
        self.free = []
        self.retired = set()
        self.intent = {}  # process -> (expected, desired, new address, child first word)
        self.hazard = {}  # (process, index) -> address
        self.child = None  # words of the child's slots once linked
        self.log = []
        self.bug = bug
        self.next = 0
        for i, (key, value) in enumerate(initial):
            self.slots[i] = (RECORD, self.allocate(key, value))

    def allocate(self, key, value):
        if self.free:
            address = self.free.pop(0)
        else:
            address, self.next = self.next, self.next + 1
        self.records[address] = [key, value, 'L']
        return address

    def freeze(self):
        return (self.gate, tuple(self.slots), tuple(self.child or ()),
                tuple(sorted((k, tuple(v)) for k, v in self.records.items())), tuple(self.free),
                tuple(sorted(self.retired)), tuple(sorted(self.intent.items())),
                tuple(sorted(self.hazard.items())), tuple(self.log))

    def read(self, place):
        return self.slots[place] if place < self.root else self.child[place - self.root]

    def write(self, place, word):
        if place < self.root:
            self.slots[place] = word
        else:
            self.child[place - self.root] = word

    def record(self, address):
        if address in self.free:
            raise Broken('a freed record is read under protection')
        return self.records[address]

    def protected(self):
        named = set(self.hazard.values())
        for intent in self.intent.values():
            named.add(intent[2])
        return named


def finish(w, me, gate):
    """Anybody: brings the operation that the gate shows to its end."""
    version, (owner, op, place) = gate
    yield 'intent'
    intent = w.intent.get(owner)
    attempt = intent is not None
    if op == 'link' and attempt and w.bug != 'link without hazard':
        yield 'hazard'
        w.hazard[me, 'gate'] = intent[0][1]
        yield 'slot'
        attempt = w.read(place) == intent[0]
    yield 'gate again'
    if w.gate == gate:
        if attempt:
            yield 'slot cas'
            expected, desired, _, moved = intent
            if w.read(place) == expected or (w.bug == 'no expected' and w.read(place)[0] == EMPTY):
                if op == 'link':
                    w.child = [moved, (EMPTY, 0)]
                w.write(place, desired)
        yield 'gate cas'
        if w.gate == gate:
            w.gate = (version + 1, None)
    w.hazard.pop((me, 'gate'), None)


def unlink(w, me, address, following):
    while True:
        yield 'gate'
        gate = w.gate
        found = None
        place = 0
        while place < w.root + (len(w.child) if w.child else 0):
            yield 'slot'
            word = w.read(place)
            if word == (RECORD, address):
                found = place
                break
            place += 1
        if found is None:
            return
        if gate[1] is not None and gate[1][2] == found and w.bug != 'no help':
            yield from finish(w, me, gate)
            continue
        yield 'slot cas'
        if w.read(found) == (RECORD, address):
            stamp = 0 if w.bug == 'no stamp' else gate[0]
            w.write(found, (EMPTY, stamp) if following is None else (RECORD, following))
            return


def find(w, me, key):
    """('hit', address) or ('miss', gate, empty place or None, its word, last place, last word)."""
    while True:
        yield 'gate'
        gate = w.gate
        if gate[1] is not None:
            yield from finish(w, me, gate)
            continue
        empty = last = None
        again = False
        place = 0
        while place < w.root + (len(w.child) if w.child else 0):
            yield 'slot'
            word = w.read(place)
            if word[0] == LINK:
                place += 1
                continue
            last = (place, word)
            if word[0] == EMPTY:
                empty = empty or (place, word)
                place += 1
                continue
            yield 'hazard'
            w.hazard[me, 'find'] = word[1]
            yield 'slot again'
            if w.read(place) != word:
                again = True
                break
            if w.record(word[1])[0] != key:
                place += 1
                continue
            yield 'state'
            state = w.record(word[1])[2]
            if state == 'L':
                return ('hit', word[1])
            yield from unlink(w, me, word[1], None if state == 'D' else state)
            again = True
            break
        if not again:
            return ('miss', gate, empty, last)


def end(w, me):
    w.intent.pop(me, None)
    for name in ('find', 'gate', 'link'):
        w.hazard.pop((me, name), None)


def put(w, me, key, value, replace=True):
    yield 'allocate'
    new = w.allocate(key, value)
    w.intent[me] = (None, None, new, None)
    while True:
        found = yield from find(w, me, key)
        if found[0] == 'hit':
            if not replace:
                yield 'free'
                w.intent.pop(me)
                w.free.append(new)
                return False
            old = found[1]
            yield 'state cas'
            if w.record(old)[2] != 'L':
                continue
            w.records[old][2] = new
            yield from unlink(w, me, old, new)
            w.retired.add(old)
            return True
        _, gate, empty, last = found
        if empty is None and w.child is not None:
            yield 'free'
            w.intent.pop(me)
            w.free.append(new)
            return 'full'
        if empty is None:
            place, word = last
            w.hazard[me, 'link'] = word[1]
            yield 'slot again'
            if w.read(place) != word:
                continue
            arguments, op = (word, (LINK, 0), new, word), 'link'
        else:
            place, word = empty
            arguments, op = (word, (RECORD, new), new, None), 'insert'
        yield 'arguments'
        w.intent[me] = arguments
        yield 'gate cas'
        if w.gate != gate:
            continue
        pending = (gate[0], (me, op, place))
        w.gate = pending
        yield from finish(w, me, pending)
        if op == 'insert':
            return False if replace else True


def insert(w, me, key, value):
    return (yield from put(w, me, key, value, False))


def delete(w, me, key):
    while True:
        found = yield from find(w, me, key)
        if found[0] == 'miss':
            return False
        yield 'state cas'
        if w.record(found[1])[2] != 'L':
            continue
        w.records[found[1]][2] = 'D'
        yield from unlink(w, me, found[1], None)
        w.retired.add(found[1])
        return True


def get(w, me, key):
    """The reader without a store, at the grain of whole records (bytes: incarnations keep them)."""
    while True:
        again = False
        place = 0
        while place < w.root + (len(w.child) if w.child else 0):
            yield 'slot'
            word = w.read(place)
            if word[0] != RECORD:
                place += 1
                continue
            yield 'record'
            mine = list(w.records[word[1]])
            value = mine[1]
            if mine[2] not in ('L', 'D'):
                yield 'next record'
                following = w.records.get(mine[2])
                value = following[1] if following else None
            yield 'slot again'
            if w.read(place) != word or w.records[word[1]][:2] != mine[:2]:
                again = True
                break
            if mine[0] != key:
                place += 1
                continue
            return None if mine[2] == 'D' else value
        if not again:
            return None


STEPS = {'put': put, 'insert': insert, 'delete': delete, 'get': get}


def run(w, me, plan):
    for number, call in enumerate(plan):
        yield 'begin'
        w.log.append((me, number, 'begin'))
        answer = yield from STEPS[call[0]](w, me, *call[1:])
        end(w, me)
        w.log.append((me, number, 'end', answer))


def apply(bound, call, answer, known):
    bound = dict(bound)
    key = call[1]
    there = key in bound
    if call[0] == 'get':
        right = answer == bound.get(key)
    elif call[0] == 'put':
        right = answer == there
        if answer != 'full':
            bound[key] = call[2]
        else:
            right = True
    elif call[0] == 'insert':
        right = answer == (not there) or answer == 'full'
        if not there and answer != 'full':
            bound[key] = call[2]
    else:
        right = answer == there
        bound.pop(key, None)
    return bound if right or not known else None


def explained(log, plans, initial):
    calls = {}
    for at, event in enumerate(log):
        if event[2] == 'begin':
            calls[event[:2]] = [at, None, None]
        else:
            calls[event[:2]][1:] = [at, event[3]]

    def search(left, bound):
        if all(calls[c][1] is None for c in left):
            return True
        for c in left:
            if any(calls[o][1] is not None and calls[o][1] < calls[c][0] for o in left if o != c):
                continue
            after = apply(bound, plans[c[0]][c[1]], calls[c][2], calls[c][1] is not None)
            if after is not None and search([o for o in left if o != c], after):
                return True
        return False

    return search(list(calls), dict(initial))


def where(generator):
    """Where a process stands: its frames' positions and variables."""
    state = []
    while generator is not None and hasattr(generator, 'gi_frame'):
        frame = generator.gi_frame
        if frame is None:
            break
        state.append((frame.f_lasti, repr(sorted((k, repr(v)) for k, v in frame.f_locals.items()
                                                 if k not in ('w', 'plan')))))
        generator = generator.gi_yieldfrom
    return tuple(state)


def replay(schedule, slots, initial, plans, bug):
    w = World(slots, initial, bug)
    runs = [run(w, me, plan) for me, plan in enumerate(plans)]
    alive = [True] * len(runs)
    for r in runs:
        next(r)
    for step in schedule:
        if step[0] == 'free':
            w.retired.discard(step[1])
            w.free.append(step[1])
            continue
        try:
            runs[step[1]].send(None)
        except StopIteration:
            alive[step[1]] = False
    return w, runs, alive


def final(w, plans, initial):
    if not explained(w.log, plans, initial):
        raise Broken('no order explains %r' % (w.log,))
    words = list(w.slots) + list(w.child or ())
    addresses = [word[1] for word in words if word[0] == RECORD]
    keys = [w.records[a][0] for a in addresses]
    if any(a in w.free or a in w.retired for a in addresses):
        raise Broken('a record that was let go is reachable')
    if len(set(keys)) != len(keys):
        raise Broken('a key is there twice')


def without(schedule, still, slots, initial, plans, bug):
    """One process stands still for ever: the others end."""
    w, runs, alive = replay(schedule, slots, initial, plans, bug)
    for me, r in enumerate(runs):
        steps = 0
        while me != still and alive[me]:
            steps += 1
            if steps > 2000:
                raise Broken('process %d waits for process %d' % (me, still))
            try:
                r.send(None)
            except StopIteration:
                alive[me] = False
    if not explained(w.log, plans, initial):
        raise Broken('with %d standing still, no order explains %r' % (still, w.log))


def explore(slots, initial, plans, bug, seconds, most):
    """(broken or None, states, whole): every schedule, states met before are not gone into.

    Ends early after that much CPU time, or after that many states.
    """
    began = time.process_time()
    seen = set()
    stack = [()]
    while stack:
        if time.process_time() - began > seconds or len(seen) >= most:
            return None, len(seen), False
        schedule = stack.pop()
        try:
            w, runs, alive = replay(schedule, slots, initial, plans, bug)
            state = (w.freeze(), tuple(where(r) if a else None for r, a in zip(runs, alive)))
            if state in seen:
                continue
            seen.add(state)
            if not any(alive):
                final(w, plans, initial)
                continue
            if len(seen) % 97 == 0:
                for me, a in enumerate(alive):
                    if a:
                        without(schedule, me, slots, initial, plans, bug)
        except Broken as broken:
            return broken, len(seen), False
        for address in sorted(w.retired - w.protected()):
            stack.append(schedule + (('free', address),))
        for me, a in enumerate(alive):
            if a:
                stack.append(schedule + (('step', me),))
    return None, len(seen), True


A, B, C = 'A', 'B', 'C'
SCENARIOS = [
    ('two inserts of one key', 2, [], [[('insert', A, 1)], [('insert', A, 2)]]),
    ('put and delete', 2, [], [[('put', A, 1)], [('delete', A)]]),
    ('put and put of a key that is there', 1, [(A, 0)], [[('put', A, 1)], [('put', A, 2)]]),
    ('replace and delete', 1, [(A, 0)], [[('put', A, 1)], [('delete', A)]]),
    ('get while it is deleted and put again', 1, [(A, 0)],
     [[('get', A)], [('delete', A), ('put', A, 1)]]),
    ('get while it is replaced', 1, [(A, 0)], [[('get', A)], [('put', A, 1), ('put', A, 2)]]),
    ('link while the displaced one is deleted', 1, [(A, 0)], [[('put', B, 1)], [('delete', A)]]),
    ('link while the displaced one is replaced', 1, [(A, 0)], [[('put', B, 1)], [('put', A, 2)]]),
    ('link and get', 1, [(A, 0)], [[('put', B, 1)], [('get', A), ('get', B)]]),
]
BUGS = [
    ('no stamp', 1, [], [[('insert', A, 1)], [('delete', A)], [('insert', B, 2)]]),
    ('no help', 1, [(A, 0)], [[('delete', A), ('insert', A, 1)], [('delete', A)], [('delete', A)]]),
    ('no expected', 1, [], [[('insert', A, 1)], [('delete', A), ('insert', A, 2), ('delete', A)]]),
]

INFINITE = float('inf')
MOST_STATES = 200000  # a planted bug must be found among so many, however slow the machine is


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0  # of CPU time, for each scenario
    print('TAP version 13')
    print('1..%d' % (len(SCENARIOS) + len(BUGS)))
    number = 0
    bad = False
    for name, slots, initial, plans in SCENARIOS:
        number += 1
        broken, states, whole = explore(slots, initial, plans, None, seconds, INFINITE)
        print('# %d states%s' % (states, '' if whole else ', not all'))
        if broken:
            print('# %s' % broken)
            bad = True
        print('%s %d - %s' % ('not ok' if broken else 'ok', number, name))
    for name, slots, initial, plans in BUGS:
        number += 1
        broken, states, _ = explore(slots, initial, plans, name, INFINITE, MOST_STATES)
        print('# %d states: %s' % (states, broken))
        bad = bad or not broken
        print('%s %d - planted bug is found: %s' % ('ok' if broken else 'not ok', number, name))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
