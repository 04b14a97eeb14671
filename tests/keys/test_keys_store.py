"""The key store at rest: secrets, modes, torn writes, rotation, keys taken away; and the vault of epoch keys."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keys.keystore import KeyStore
from keys.secret import Secret
from keys.suite import Tw1Verifier
from keys.tufsign import tuf_signer
from keys.vault import EpochVault
from protocols.ports.crypto import ContentKey
from protocols.problems import ProblemError

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ORIGIN = "test/registry/2026.1"
PASSPHRASE = "correct horse battery"
ROOT = Path(__file__).parents[2]


def secret(text: str = PASSPHRASE) -> Secret:
    return Secret.passphrase(text, cost=2**4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(folder: Path) -> KeyStore:
    return KeyStore.create(folder, secret())


def fix_of(caught: pytest.ExceptionInfo[ProblemError]) -> str:
    assert caught.value.code == "key.store"
    return caught.value.errors[0].fix


def test_a_store_opens_again_with_the_same_keys(store: KeyStore, folder: Path) -> None:
    for use in ("message", "request", "token", "seal", "record"):
        store.add(use)
    store.add("ledger", origin=ORIGIN)
    again = KeyStore.open(folder, secret())
    assert again.inventory() == store.inventory()
    assert again.signer("message").sign(b"m") == store.signer("message").sign(b"m")
    assert again.note_signer(ORIGIN).vkeys == store.note_signer(ORIGIN).vkeys
    assert again.record_signer().public == store.public("record")[0]
    (seal,) = store.public("seal")
    wrapped = again.sealer().wrap(seal.public, b"")
    assert again.opener().unwrap(seal.kid, wrapped.ek, wrapped.encrypted_key, b"") == wrapped.cek
    assert len({key.public.public for key in store.inventory()}) == 7


@pytest.mark.usefixtures("store")
def test_another_passphrase_or_kind_of_secret_does_not_open(folder: Path, tmp_path: Path) -> None:
    Secret.make_key_file(tmp_path / "secret")
    for wrong in (secret("wrong horse battery"), Secret.key_file(tmp_path / "secret")):
        with pytest.raises(ProblemError) as caught:
            KeyStore.open(folder, wrong)
        assert "passphrase" in fix_of(caught)


def test_a_key_file_opens_and_must_be_private(tmp_path: Path, folder: Path) -> None:
    Secret.make_key_file(tmp_path / "secret")
    public = KeyStore.create(folder, Secret.key_file(tmp_path / "secret")).add("message")
    assert KeyStore.open(folder, Secret.key_file(tmp_path / "secret")).public("message") == public
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(ProblemError) as caught:
        Secret.key_file(tmp_path / "secret")
    assert "chmod 600" in fix_of(caught)


@pytest.mark.usefixtures("store")
def test_keys_that_others_may_read_are_refused_with_the_fix(folder: Path) -> None:
    assert (folder / "node.key").stat().st_mode & 0o777 == 0o600
    (folder / "node.key").chmod(0o644)
    with pytest.raises(ProblemError) as caught:
        KeyStore.open(folder, secret())
    assert "chmod 600" in fix_of(caught)


@pytest.mark.usefixtures("store")
def test_a_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o770)
    with pytest.raises(ProblemError) as caught:
        KeyStore.open(folder, secret())
    assert "chmod 700" in fix_of(caught)


def test_a_torn_write_keeps_the_old_keys(store: KeyStore, folder: Path) -> None:
    public = store.add("message")
    (folder / ".node.key.tmp").write_bytes((folder / "node.key").read_bytes()[:40])
    assert KeyStore.open(folder, secret()).public("message") == public
    store.add("request")
    assert len(KeyStore.open(folder, secret()).inventory()) == 2


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"v":1,"by":{"kdf":"scrypt"},"sealed":"AA"}', b"\xff"])
def test_a_damaged_file_is_a_problem_of_the_store(folder: Path, damage: bytes) -> None:
    (folder / "node.key").write_bytes(damage)
    with pytest.raises(ProblemError, match=r"key.store"):
        KeyStore.open(folder, secret())


def test_a_file_does_not_open_under_another_name(store: KeyStore, folder: Path) -> None:
    store.add("record")
    (folder / "record.key").write_bytes((folder / "node.key").read_bytes())
    with pytest.raises(ProblemError, match=r"record.key does not open"):
        store.record_signer()


@pytest.mark.usefixtures("store")
def test_a_store_is_not_created_over_another(folder: Path) -> None:
    with pytest.raises(ProblemError, match="holds keys already"):
        KeyStore.create(folder, secret())


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(ProblemError, match="too short"):
        Secret.passphrase("short")


def test_the_record_key_can_be_taken_away_and_brought_back(store: KeyStore, folder: Path) -> None:
    (public,) = store.add("record")
    assert public.alg == "ML-DSA-65"
    away = (folder / "record.key").rename(folder.parent / "record.key")
    again = KeyStore.open(folder, secret())
    assert again.public("record") == [public]
    with pytest.raises(ProblemError) as caught:
        again.record_private()
    assert "record.key back" in fix_of(caught)
    away.rename(folder / "record.key")
    assert Tw1Verifier().verify("ML-DSA-65", public.public, b"m", again.record_signer().sign(b"m"))
    assert tuf_signer(again.record_private()).public_key.scheme == "ml-dsa-65/1"


def test_old_seal_keys_open_until_they_are_dropped(store: KeyStore, folder: Path) -> None:
    (old,) = store.add("seal")
    wrapped = store.sealer().wrap(old.public, b"")
    (new,) = store.add("seal")
    assert store.public("seal") == [old, new]
    store.promote("seal", NOW, "another")  # somebody was faster, or has chosen another
    assert store.next("seal") is not None
    store.promote("seal", NOW)
    assert store.public("seal") == [new]
    assert [(key.state, key.retired) for key in store.inventory()] == [("old", NOW), ("current", None)]
    again = KeyStore.open(folder, secret())
    assert again.opener().unwrap(old.kid, wrapped.ek, wrapped.encrypted_key, b"") == wrapped.cek
    with pytest.raises(ProblemError, match=r"key.store"):
        again.drop(new.kid)
    again.drop(old.kid)
    assert again.opener().unwrap(old.kid, wrapped.ek, wrapped.encrypted_key, b"") is None


def test_a_use_has_one_next_key_and_a_ledger_one_pair(store: KeyStore) -> None:
    store.add("ledger", origin=ORIGIN)
    with pytest.raises(ProblemError, match="already"):
        store.add("ledger", origin=ORIGIN)
    store.add("message")
    store.add("message")
    with pytest.raises(ProblemError, match="already"):
        store.add("message")
    assert len(store.inventory()) == 4


def test_a_change_does_not_lose_what_another_process_added(store: KeyStore, folder: Path) -> None:
    other = KeyStore.open(folder, secret())
    other.add("request")
    store.add("message")
    assert {key.use for key in KeyStore.open(folder, secret()).inventory()} == {"request", "message"}


def test_possession_is_signed_by_every_published_signing_key(store: KeyStore) -> None:
    for use in ("message", "request", "token", "seal", "record"):
        store.add(use)
    store.add("ledger", origin=ORIGIN)
    signed = store.possession(b"tracewire request 1\0nonce")
    assert sorted(key.alg for key, _ in signed) == ["Ed25519", "Ed25519", "Ed25519", "ML-DSA-44", "ML-DSA-65"]
    for key, signature in signed:
        assert Tw1Verifier().verify(key.alg, key.public, b"tracewire request 1\0nonce", signature)  # type: ignore[arg-type]


def test_no_private_key_appears_in_a_repr(store: KeyStore) -> None:
    store.add("message")
    (key,) = store._keys
    assert len(key.seed) == 32
    assert repr(key.seed) not in repr(key)
    assert "seed" not in repr(key)
    assert store.inventory()[0].seed == b""
    assert PASSPHRASE not in repr(secret()) + repr(store) + repr(vars(store))


def vault_of(folder: Path) -> EpochVault:
    KeyStore.create(folder, secret())
    return EpochVault.create(folder, secret())


def test_content_opens_in_its_scope_and_name_only_also_after_a_restart(folder: Path) -> None:
    vault = vault_of(folder)
    key = vault.new_key("thread-1")
    sealed = vault.seal(key, "thread-1", "jws", b"content")
    assert EpochVault(folder, secret()).open(key, "thread-1", "jws", sealed) == b"content"
    other = vault.new_key("thread-1")
    for wrong, scope, name, data in (
        (key, "thread-2", "jws", sealed),
        (key, "thread-1", "part", sealed),
        (other, "thread-1", "jws", sealed),
        (key, "thread-1", "jws", sealed[:-1]),
        (key, "thread-1", "jws", b""),
        (ContentKey(generation=1, wrapped=b""), "thread-1", "jws", sealed),
        (ContentKey(generation=9, wrapped=key.wrapped), "thread-1", "jws", sealed),
        (ContentKey(generation=-1, wrapped=key.wrapped), "thread-1", "jws", sealed),
    ):
        with pytest.raises(ProblemError, match=r"content.erased"):
            vault.open(wrong, scope, name, data)


def test_a_rotation_is_seen_by_others_and_keeps_older_content_readable(folder: Path) -> None:
    vault = vault_of(folder)
    key = vault.new_key("t")
    sealed = vault.seal(key, "t", "jws", b"content")
    other = EpochVault(folder, secret())
    assert other.rotate() == 2
    assert vault.generation == 2
    assert vault.new_key("t").generation == 2
    assert vault.open(key, "t", "jws", sealed) == b"content"


def test_erasing_destroys_one_thread_and_an_old_backup_reads_all_others(folder: Path) -> None:
    vault, bystander = vault_of(folder), EpochVault(folder, secret())
    keys = {scope: vault.new_key(scope) for scope in ("stay", "gone", "later")}
    sealed = {scope: vault.seal(key, scope, "jws", scope.encode()) for scope, key in keys.items()}
    assert bystander.open(keys["gone"], "gone", "jws", sealed["gone"]) == b"gone"  # in its cache now
    vault.rotate()
    moved = {scope: vault.rewrap(keys[scope], scope) for scope in ("stay", "later")}
    vault.keep(1, [(keys[scope], moved[scope]) for scope in moved])
    vault.destroy(1, erased=[keys["gone"]])
    for each in (vault, bystander, EpochVault(folder, secret())):
        with pytest.raises(ProblemError, match=r"content.erased"):
            each.open(keys["gone"], "gone", "jws", sealed["gone"])
        assert each.open(moved["stay"], "stay", "jws", sealed["stay"]) == b"stay"
        assert each.open(keys["stay"], "stay", "jws", sealed["stay"]) == b"stay"  # as an old backup names it
    vault.rotate()
    vault.keep(2, [(moved["stay"], vault.rewrap(moved["stay"], "stay"))])
    vault.destroy(2, erased=[moved["later"]])
    assert vault.open(keys["stay"], "stay", "jws", sealed["stay"]) == b"stay"
    for key in (keys["later"], moved["later"]):
        with pytest.raises(ProblemError, match=r"content.erased"):
            vault.open(key, "later", "jws", sealed["later"])
    assert bystander.generation == 3  # though it never saw generation 2


def test_destroying_again_after_a_crash_adds_to_what_was_kept_and_takes_out_the_erased(folder: Path) -> None:
    vault = vault_of(folder)
    keys = {scope: vault.new_key(scope) for scope in ("a", "b", "c")}
    sealed = {scope: vault.seal(key, scope, "jws", b"x") for scope, key in keys.items()}
    vault.rotate()
    moved = {scope: vault.rewrap(keys[scope], scope) for scope in keys}
    kept = folder / "epochs/1.kept"
    vault.keep(1, [(keys["a"], moved["a"]), (keys["b"], moved["b"])])
    kept.write_bytes(kept.read_bytes() + b'["cut by a cra')
    vault.destroy(1, erased=[])
    vault.keep(1, [(keys["c"], moved["c"])])
    vault.destroy(1, erased=[keys["b"]])
    assert kept.read_bytes().count(b"\n") == 2
    assert vault.open(keys["a"], "a", "jws", sealed["a"]) == vault.open(keys["c"], "c", "jws", sealed["c"]) == b"x"
    with pytest.raises(ProblemError, match=r"content.erased"):
        vault.open(keys["b"], "b", "jws", sealed["b"])


def test_an_epoch_key_is_never_there_half_destroyed_and_what_opens_backups_goes_on_its_day(folder: Path) -> None:
    vault, now = vault_of(folder), datetime.now(UTC)
    key = vault.new_key("t")
    sealed = vault.seal(key, "t", "jws", b"x")
    vault.rotate()
    vault.keep(1, [(key, vault.rewrap(key, "t"))])
    (folder / "epochs/1.key").rename(folder / "epochs/.1.key.gone")  # killed before it was overwritten
    assert vault.open(key, "t", "jws", sealed) == b"x"
    vault.destroy(1, erased=[])
    assert not list((folder / "epochs").glob("*1.key*"))
    for but, opens in (({1}, True), (set[int](), False)):
        vault.forget(now + timedelta(days=1), but=but)
        if opens:
            assert vault.open(key, "t", "jws", sealed) == b"x"
    with pytest.raises(ProblemError, match=r"content.erased"):
        vault.open(key, "t", "jws", sealed)
    assert EpochVault(folder, secret()).generation == 2, "no number is given twice"


def test_the_open_epoch_cannot_be_destroyed(folder: Path) -> None:
    vault = vault_of(folder)
    key = vault.new_key("t")
    with pytest.raises(ProblemError, match=r"Rotate|cannot be destroyed"):
        vault.destroy(1, erased=[])
    assert vault.open(key, "t", "n", vault.seal(key, "t", "n", b"x")) == b"x"


def test_a_key_file_made_by_one_process_opens_in_another(store: KeyStore, folder: Path) -> None:
    public = store.add("message")
    script = (
        "import sys, pathlib; from keys.keystore import KeyStore; from keys.secret import Secret;"
        "print(KeyStore.open(pathlib.Path(sys.argv[1]), Secret.passphrase(sys.argv[2])).signer('message').kid)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(folder), PASSPHRASE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == public[0].kid
