"""Prompts are registered models with a tag; searches leave them out unless the filter asks for them."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from runstream_server.search.query import Prepared
from runstream_server.search.tree import And, Comparison, Entity, Node, comparisons
from runstream_server.store import tables as t

IS_PROMPT_TAG = "mlflow.prompt.is_prompt"
"""Tag that makes a model a prompt when its value is `true`."""


def without_prompts(search: Prepared) -> tuple[Prepared, list[sa.ColumnElement[bool]]]:
    """Return a search of models or versions without its clause about prompts, and the condition it means.

    A clause that asks for prompts stays as it is; any other, and none, means models only: models do not
    carry the tag, so the clause itself would match nothing.
    """
    clauses = [clause for clause in _clauses(search.node) if _is_about_prompts(clause)]
    if not clauses and any(_is_about_prompts(clause) for clause in comparisons(search.node)):
        return search, []  # within OR or NOT: the filter says itself what it wants
    if clauses and _asks_for_prompts(clauses[0]):
        return search, []
    terms = tuple(clause for clause in _clauses(search.node) if not _is_about_prompts(clause))
    return replace(search, node=And(terms)), [sa.not_(_is_prompt(search.language.table))]


def _clauses(node: Node) -> tuple[Node, ...]:
    return node.terms if isinstance(node, And) else (node,)


def _is_about_prompts(node: Node) -> bool:
    return isinstance(node, Comparison) and node.entity is Entity.TAG and node.key == IS_PROMPT_TAG


def _asks_for_prompts(node: Node) -> bool:
    if not isinstance(node, Comparison):
        return False
    return (node.operator, str(node.value).lower()) in (("=", "true"), ("!=", "false"))


def _is_prompt(table: sa.Table) -> sa.ColumnElement[bool]:
    if table is t.registered_models:
        tags, model = t.registered_model_tags, t.registered_models.c.id
    else:
        tags, model = t.model_version_tags, t.model_versions.c.model
    marked = sa.select(tags.c.model).where(tags.c.key == IS_PROMPT_TAG, tags.c.value == "true")
    return model.in_(marked)
