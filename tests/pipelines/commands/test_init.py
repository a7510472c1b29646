"""`morph-tfx init`: files that the other commands take, and nothing overwritten."""

from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli


def invoke(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_init_writes_files_that_run_accepts_but_for_the_data(tmp_path):
    result = invoke("init", tmp_path / "new")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.yaml", "module.py"]
    result = invoke("run", "--config", tmp_path / "new" / "config.yaml")
    assert result.exit_code == 2
    assert f"data.path: {tmp_path / 'new' / 'data'} is not a directory" in result.output


def test_init_overwrites_nothing(tmp_path):
    (tmp_path / "module.py").write_text("mine")
    result = invoke("init", tmp_path)
    assert result.exit_code == 2
    assert "module.py exists already" in result.output
    assert (tmp_path / "module.py").read_text() == "mine"
    assert not (tmp_path / "config.yaml").exists()
