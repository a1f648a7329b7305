"""Names for runs that were given none: adjective-animal-number."""

from __future__ import annotations

import secrets

_ADJECTIVES = """
able bald big bold brave bright calm capable clean clever crisp curious dapper daring dazzling deft eager
earnest fair fast fearless flawless fluffy fresh gentle glad gleaming grand handsome honest hopeful
humble kind learned likeable lively loud lucky mellow merry mighty mild nimble noble orderly patient
peaceful placid polite proud quick quiet rare resolute salty selfless serious sincere skittish sleepy
smooth stately steady sunny swift tasteful thoughtful tidy upbeat valiant vivid welcoming wise witty
zealous
"""
_ANIMALS = """
ant ape auk bass bat bear bee bird boar bug calf carp cat cod colt conch cow crab crane croc crow cub
deer doe dog dolphin donkey dove duck eel elk fawn finch fish flea fly foal fowl fox frog gnat gnu goat
goose grouse grub gull hare hawk hen heron hog horse hound jay kit kite koi lamb lark loon lynx mare
midge mink mole moose moth mouse mule newt owl ox panda penguin perch pig pug quail ram rat ray robin roo
rook seal shad shark sheep shoat shrew shrike shrimp skink skunk sloth slug smelt snail snake snipe sow
sponge squid squirrel stag steed stoat stork swan tern toad trout turtle vole wasp whale wolf worm wren
yak zebra
"""


def generate_run_name() -> str:
    """Return a name such as `placid-owl-417`."""
    # Not `random`: a seeded script would give all its runs one name, and calling it would change its numbers.
    adjective, animal = (secrets.choice(words.split()) for words in (_ADJECTIVES, _ANIMALS))
    return f"{adjective}-{animal}-{secrets.randbelow(1000)}"
