"""The restricted parts: never in a body, each sealed with a key of its own (docs/protocol.md section 2)."""

from typing import Annotated

from pydantic import Field

from protocols.messages.shared import (
    Coded,
    Country,
    Listed,
    LongText,
    Many,
    Maybe,
    Model,
    PartialDate,
    PartyClass,
    Text,
)


class Person(Model):
    """A person in the case."""

    role: Annotated[Coded, Listed("person_role")]
    name: Text
    born: Maybe[PartialDate] = None
    nationality: Maybe[Country] = None
    identity_document: Maybe[Text] = None
    address: Maybe[Text] = None
    note: Maybe[LongText] = None


class Persons(Model):
    """The part `persons` of a trace request."""

    persons: Annotated[Many[Person], Field(min_length=1, max_length=32)]


class LastLegalHolder(Model):
    """The part `last_legal_holder` of a trace response."""

    party: PartyClass
    name: Text
    country: Country
    address: Maybe[Text] = None
    born: Maybe[PartialDate] = None
    identity_document: Maybe[Text] = None
    acquired_on: Maybe[PartialDate] = None
    licence: Maybe[Text] = None
    note: Maybe[LongText] = None


PARTS: dict[str, type[Model]] = {"persons": Persons, "last_legal_holder": LastLegalHolder}
