"""Signing in: guesses are slowed, unknown users look like known ones, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Iterator

import grpc
import pytest
from sqlalchemy import exc

from runstream.v1 import access_pb2 as pb
from runstream.v1 import experiments_pb2
from runstream_server.access import credentials
from runstream_server.access.passwords import verify_password
from runstream_server.access.throttle import Throttle
from runstream_server.backend import StoreError
from runstream_server.config import SettingError, Settings
from runstream_server.errors import Exhausted
from runstream_server.store import schema
from runstream_server.store.audit import Entry, add_entry
from runstream_server.store.engine import Database
from tests.doors import ApiError
from tests.in_process import running_server
from tests.names import unique
from tests.security.access import Guarded, basic, guarded_server

PASSWORD = "correct horse battery"
ASK = pb.GetCurrentUserRequest()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with guarded_server(str(folder), folder) as server:
        yield server


@pytest.fixture(autouse=True)
def _new_minute(guarded) -> None:
    """Forget the failures that the tests before have made from the one address all of them have."""
    gate = guarded.server.server.context.gate
    gate._authenticator._throttle._failures.clear()
    gate._recorder._refusals.clear()


@pytest.fixture
def user(guarded) -> str:
    login = unique("user")
    guarded.call(pb.CreateUserRequest(user=login, password=PASSWORD))
    return login


def code(guarded: Guarded, authorization: str, door: str = "rest") -> grpc.StatusCode:
    try:
        guarded.door(authorization, door).call(ASK)
    except ApiError as error:
        return error.code
    return grpc.StatusCode.OK


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each password is added that goes through argon2 from here on."""
    asked: list[str] = []

    def verify(kept: str | None, given: str) -> bool:
        asked.append(given)
        return verify_password(kept, given)

    monkeypatch.setattr(credentials, "verify_password", verify)
    return asked


@pytest.mark.parametrize("door", ["grpc", "http", "rest"])
def test_a_password_signs_in_on_every_door(guarded, user, door) -> None:
    assert guarded.door(basic(user, PASSWORD), door).call(ASK).user.name == user
    assert code(guarded, basic(user, PASSWORD + "x"), door) is grpc.StatusCode.UNAUTHENTICATED


def test_a_password_goes_through_argon2_once_and_not_with_every_call(guarded, user, monkeypatch) -> None:
    asked = count_hashes(monkeypatch)
    monkeypatch.setattr(credentials, "FRESH", 0.0)  # the row is read for each call
    for _ in range(20):
        assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.OK
    assert len(asked) == 1


def test_after_ten_failures_the_source_is_told_to_wait(guarded, user) -> None:
    wrong = [code(guarded, basic(user, f"wrong {number}")) for number in range(12)]
    assert wrong == [grpc.StatusCode.UNAUTHENTICATED] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["a\0b", "\u202e", "x" * 10_000, "' OR 1=1 --", ""])
def test_strange_names_do_not_sign_in_and_name_nobody(guarded, name) -> None:
    assert code(guarded, basic(name, PASSWORD)) is grpc.StatusCode.UNAUTHENTICATED
    for request in (pb.ListTokensRequest(user=name or "?"), pb.DeleteUserRequest(user=name or "?")):
        with pytest.raises(ApiError) as refused:
            guarded.call(request)
        assert refused.value.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


def test_who_is_signed_in_is_not_locked_out_by_the_guesses_of_others(guarded, user) -> None:
    assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.OK
    for number in range(12):
        code(guarded, basic(user, f"wrong {number}"))
    assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.OK


def test_failures_count_for_source_and_user_within_a_minute() -> None:
    now = [0.0]
    throttle = Throttle(3, lambda: now[0])
    for _ in range(3):
        throttle.check("1.2.3.4", "ada")
        throttle.fail("1.2.3.4", "ada")
    with pytest.raises(Exhausted) as refused:
        throttle.check("1.2.3.4", "ada")
    assert refused.value.retry_after == 60
    throttle.check("1.2.3.4", "bob")
    throttle.check("5.6.7.8", "ada")
    now[0] = 61.0
    throttle.check("1.2.3.4", "ada")


def test_an_unknown_user_takes_as_long_as_a_wrong_password(guarded, user, monkeypatch) -> None:
    authenticator = guarded.server.server.context.gate._authenticator
    monkeypatch.setattr(authenticator._throttle, "check", lambda source, user: None)

    def milliseconds(login: str) -> float:
        taken = []
        for number in range(9):
            begin = time.perf_counter()
            code(guarded, basic(login, f"guess {number}"))
            taken.append(1e3 * (time.perf_counter() - begin))
        return statistics.median(taken)

    known, unknown = milliseconds(user), milliseconds("nobody-of-this-name")
    # The hash takes tens of milliseconds, anything else about one: without it the ratio would be far off.
    assert 0.4 < unknown / known < 2.5


def test_answers_for_wrong_users_and_passwords_do_not_differ(guarded, user) -> None:
    said = set()
    for login in (user, "nobody-of-this-name"):
        with pytest.raises(ApiError) as refused:
            guarded.door(basic(login, "a wrong password"), "rest").call(ASK)
        said.add((refused.value.http, refused.value.message))
    assert said == {(401, "user or password is wrong")}


def test_a_new_password_ends_the_old_one(guarded, user) -> None:
    assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.OK
    change = pb.ChangePasswordRequest(old_password=PASSWORD, new_password="another long password")
    guarded.door(basic(user, PASSWORD), "rest").call(change)
    assert code(guarded, basic(user, PASSWORD)) is grpc.StatusCode.UNAUTHENTICATED
    assert code(guarded, basic(user, "another long password")) is grpc.StatusCode.OK
    with pytest.raises(ApiError, match="old password is wrong"):
        guarded.door(basic(user, "another long password"), "rest").call(change)


def test_a_disabled_user_is_out_and_back(guarded, user) -> None:
    token = "Bearer " + guarded.call(pb.CreateTokenRequest(user=user)).secret
    for disabled, expected in ((True, grpc.StatusCode.UNAUTHENTICATED), (False, grpc.StatusCode.OK)):
        guarded.call(pb.UpdateUserRequest(user=user, disabled=disabled))
        assert {code(guarded, token), code(guarded, basic(user, PASSWORD))} == {expected}


def test_a_token_ends_when_it_expires(guarded, user) -> None:
    soon = int(1000 * time.time()) + 700
    token = "Bearer " + guarded.call(pb.CreateTokenRequest(user=user, expiry_time=soon)).secret
    assert code(guarded, token) is grpc.StatusCode.OK
    deadline = time.monotonic() + 5
    while code(guarded, token) is grpc.StatusCode.OK:
        assert time.monotonic() < deadline
    with pytest.raises(ApiError, match="in the past"):
        guarded.call(pb.CreateTokenRequest(user=user, expiry_time=soon))


@pytest.mark.parametrize("password", ["", "a", "short", "a" * 12, "x" * 1001])
def test_bad_passwords_are_not_taken_nor_repeated(guarded, password) -> None:
    with pytest.raises(ApiError) as refused:
        guarded.call(pb.CreateUserRequest(user=unique("user"), password=password))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(password) < 2 or password not in refused.value.message


@pytest.mark.parametrize(
    "password",
    [
        *("adminadmin12", "password1234", "P@ssw0rd2024!", "qwertyuiop[]", "letmein-letmein", "123456789012"),
        *(
            "passwordpassword",
            "abcdefghijkl",
            "correct horse battery staple",
            "Mlflow-Admin-1",
            "ada-LOVELACE-99",
        ),
    ],
)
def test_passwords_that_are_guessed_first_are_refused(guarded, user, password) -> None:
    login = "ada.lovelace"
    create = pb.CreateUserRequest(user=login, password=password)
    for request in (create, pb.UpdateUserRequest(user=user, password=password)):
        if request is not create and "ada" in password:
            continue  # it is trivial for her alone
        with pytest.raises(ApiError, match="first that are guessed") as refused:
            guarded.call(request)
        assert password not in refused.value.message


@pytest.mark.parametrize(
    "password", ["correct horse battery", "839201847562", "admin of the lighthouse", PASSWORD]
)
def test_passwords_of_other_words_are_taken(guarded, password) -> None:
    guarded.call(pb.CreateUserRequest(user=unique("user"), password=password))


def test_the_last_administrator_stays(guarded) -> None:
    for change in (
        pb.DeleteUserRequest(user="root"),
        pb.UpdateUserRequest(user="root", admin=False),
        pb.UpdateUserRequest(user="root", disabled=True),
    ):
        with pytest.raises(ApiError, match="nobody could administer"):
            guarded.call(change)


def test_users_have_the_tokens_of_nobody_else(guarded, user) -> None:
    login, authorization = guarded.user()
    (other,) = guarded.call(pb.ListTokensRequest(user=login)).tokens
    mine = guarded.door(basic(user, PASSWORD), "rest").call
    for request in (pb.CreateTokenRequest(user=login), pb.ListTokensRequest(user=login)):
        with pytest.raises(ApiError) as refused:
            mine(request)
        assert refused.value.http == 403
    with pytest.raises(ApiError) as unknown:
        mine(pb.RevokeTokenRequest(token_id=other.token_id))
    assert unknown.value.http == 404
    assert [token.user for token in mine(pb.ListTokensRequest()).tokens] == []
    assert code(guarded, authorization) is grpc.StatusCode.OK


def test_a_group_shares_its_grants_with_its_members(guarded) -> None:
    login, authorization = guarded.user()
    experiment = guarded.call(experiments_pb2.CreateExperimentRequest(name=unique("e"))).experiment_id
    group = unique("group")
    guarded.call(pb.CreateGroupRequest(group=group))
    resource = pb.GrantedResource(experiment_id=experiment)
    guarded.call(pb.SetGrantRequest(grantee=pb.Grantee(group=group), resource=resource, role=pb.ROLE_READER))
    read = experiments_pb2.GetExperimentRequest(experiment_id=experiment)
    theirs = guarded.door(authorization, "rest").call
    with pytest.raises(ApiError, match="No Experiment"):
        theirs(read)
    guarded.call(pb.AddGroupMemberRequest(group=group, user=login))
    assert theirs(read).experiment.experiment_id == experiment
    guarded.call(pb.RemoveGroupMemberRequest(group=group, user=login))
    with pytest.raises(ApiError, match="No Experiment"):
        theirs(read)


def test_secrets_are_in_no_log_line_and_in_no_table(guarded, user, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    secret = guarded.call(pb.CreateTokenRequest(user=user)).secret
    code(guarded, f"Bearer {secret}")
    code(guarded, basic(user, PASSWORD))
    code(guarded, basic(user, "a wrong password"))
    context = guarded.server.server.context
    with context.db.engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT * FROM users").all())
        stored += str(connection.exec_driver_sql("SELECT * FROM tokens").all())
        stored += str(connection.exec_driver_sql("SELECT * FROM audit").all())
    for text in (caplog.text, stored, repr(context.gate), str(guarded.call(pb.ListTokensRequest()))):
        assert not any(word in text for word in (secret, PASSWORD, "a wrong password"))


def test_the_audit_log_cannot_be_changed(guarded) -> None:
    context = guarded.server.server.context
    for statement in ("UPDATE audit SET outcome = 'x'", "DELETE FROM audit"):
        with context.db.engine.connect() as connection, pytest.raises(exc.DBAPIError, match="append-only"):
            connection.exec_driver_sql(statement)


def test_the_audit_log_of_postgresql_cannot_be_changed_either(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=1)
    schema.upgrade(db)
    db.write(add_entry, Entry("ada", None, "127.0.0.1", "RunService.DeleteRun", "run 1", "OK"))
    for statement in ("UPDATE audit SET outcome = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with db.engine.connect() as connection, pytest.raises(exc.DBAPIError, match="append-only"):
            connection.exec_driver_sql(statement)
    db.close()


def test_a_server_nobody_could_administer_does_not_start(tmp_path) -> None:
    with (
        pytest.raises(StoreError, match="runstream db create-admin"),
        running_server(str(tmp_path), auth=True),
    ):
        pass


def test_a_public_address_needs_authentication_or_the_will_to_go_without() -> None:
    with pytest.raises(SettingError, match="--auth"):
        Settings.from_args({}, host="0.0.0.0")
    assert Settings.from_args({}, host="0.0.0.0", auth=True).auth


def test_many_calls_with_one_new_credential_ask_once(guarded, user, monkeypatch) -> None:
    authenticator = guarded.server.server.context.gate._authenticator
    asked = count_hashes(monkeypatch)

    async def at_once() -> None:
        header = basic(user, PASSWORD)
        await asyncio.gather(*(authenticator.authenticate(header, "127.0.0.1") for _ in range(20)))

    guarded.server.run(at_once)
    assert len(asked) == 1


def test_failures_to_sign_in_are_in_the_audit_log_without_what_was_sent(guarded, user, caplog) -> None:
    caplog.set_level(logging.INFO, "runstream.audit")
    search = pb.SearchAuditRequest(method="SignIn", max_results=1000)
    before = len(guarded.call(search).entries)
    secret = "rs_a-secret-in-the-place-of-a-name"
    for authorization in (basic(user, "a wrong password"), basic(secret, "x" * 12), "Bearer rs_unknown"):
        assert code(guarded, authorization) is grpc.StatusCode.UNAUTHENTICATED
    found = guarded.call(search).entries
    entries = list(found)[: len(found) - before]
    assert [each.resource for each in entries] == ["a token", "an unknown user", f"user {user}"]
    assert {(each.user, each.outcome, each.source) for each in entries} == {
        ("", "UNAUTHENTICATED", "127.0.0.1")
    }
    assert caplog.text.count('"SignIn"') == 3
    assert secret not in caplog.text
    assert "a wrong password" not in caplog.text
    for number in range(12):
        code(guarded, basic(user, f"guess {number}"))
    assert "RESOURCE_EXHAUSTED" in {each.outcome for each in guarded.call(search).entries}
