"""A generator's state, read while another thread draws."""

from __future__ import annotations

import threading

from stoker.agents.seeds import generator_state, seeded_generator

N_CALLS, N_DRAWS = 30, 1_000_000


def test_a_generators_state_is_never_one_in_the_middle_of_a_call() -> None:
    other = seeded_generator(0)
    between = [generator_state(other)]
    for _ in range(N_CALLS):
        other.random(N_DRAWS)
        between.append(generator_state(other))
    generator = seeded_generator(0)
    begun = threading.Event()

    def draw() -> None:
        begun.set()
        for _ in range(N_CALLS):
            generator.random(N_DRAWS)

    thread = threading.Thread(daemon=True, target=draw)
    thread.start()
    assert begun.wait(20)
    seen = []
    while thread.is_alive():
        seen.append(generator_state(generator))
    thread.join()
    assert seen
    assert all(state in between for state in seen)
    assert generator_state(generator) == between[-1]
