"""Names for runs that were given none: adjective-animal-number."""

from __future__ import annotations

import random

# ruff: noqa: SIM905 - a list of words reads better than a list of literals

_ADJECTIVES = (
    "able agile amber apt bold brave bright brisk calm candid capable careful cheerful clean clever crisp "
    "curious daring deft eager earnest easy even fair fast fine firm fleet fond frank free fresh gentle "
    "glad golden good grand great handy happy hardy honest humble jolly keen kind lively loud loyal lucky "
    "magic mellow merry mild modest neat nimble noble open patient placid polite proud quick quiet rare "
    "ready robust rugged salty serene sharp shiny silent simple smart smooth sincere sleek snappy sober "
    "solid spry stately steady strong subtle sunny sweet swift tidy tranquil upbeat valiant vivid warm "
    "watchful wise witty youthful zesty"
).split()
_ANIMALS = (
    "ant ape auk badger bat bear bee bird bison boar bug calf carp cat chimp clam cod colt conch cow crab "
    "crane cricket crow cub deer dog dolphin dove duck eagle eel elk falcon fawn finch fish flea fly foal "
    "fowl fox frog gnat gnu goat goose grouse grub gull hare hawk hen heron hog horse hound ibis jay kit "
    "kite koi lamb lark loon lynx mare mink mole moose moth mouse mule newt otter owl ox panda perch pig "
    "pug quail ram rat raven robin roo rook seal shad sheep shoat shrew shrike shrimp skink skunk sloth "
    "slug smelt snail snake snipe sow sponge squid squirrel stag steed stork swan tern toad trout turtle "
    "vole wasp whale wolf worm wren yak zebra"
).split()


def generate_name() -> str:
    """Return a name such as `brave-otter-417`."""
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_ANIMALS)}-{random.randint(0, 999)}"
