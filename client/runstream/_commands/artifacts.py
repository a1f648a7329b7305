"""`runstream artifacts …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.options import Json, TrackingUri, example, group, one_of, open_client
from runstream._commands.output import done, fail, print_json, print_table, size_text
from runstream._commands.runs import RunId

if TYPE_CHECKING:
    from runstream._client import Client
    from runstream._types import FileInfo

app = group("List, upload and download the artifacts of runs.")

ArtifactPath = Annotated[
    str | None,
    typer.Option(
        "--artifact-path",
        "-a",
        metavar="PATH",
        help="Path below the run's artifact root (default: the root).",
    ),
]


@app.command("ls", hidden=True, **example("runstream artifacts ls --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"))
@app.command(
    "list", **example("runstream artifacts list --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --recursive")
)
def list_(
    run_id: RunId,
    artifact_path: ArtifactPath = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Show all levels below.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """List the artifacts of a run, one level; `ls` is another name."""
    client = open_client(tracking_uri)
    found = _walk(client, run_id, artifact_path, recursive)
    if as_json:
        print_json({"files": [file.to_dictionary() for file in found]})
        return
    rows = [(file.path, "folder" if file.is_dir else "file", size_text(file.file_size)) for file in found]
    print_table(("Path", "Kind", "Size"), rows)


@app.command(
    **example("runstream artifacts download -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c -a model --dst-path ./model")
)
def download(
    run_id: Annotated[
        str | None, typer.Option("--run-id", "-r", metavar="ID", help="Run to download from.")
    ] = None,
    artifact_path: ArtifactPath = None,
    artifact_uri: Annotated[
        str | None,
        typer.Option(
            "--artifact-uri",
            "-u",
            metavar="URI",
            help="runs:/RUN_ID/PATH, models:/NAME/VERSION or models:/NAME@ALIAS, instead of --run-id.",
        ),
    ] = None,
    dst_path: Annotated[
        Path | None,
        typer.Option("--dst-path", "-d", metavar="DIR", help="Folder, made if absent (default: a new one)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Download a file, or a folder with all below it, and print where it is."""
    one_of(run_id=run_id, artifact_uri=artifact_uri)
    if artifact_uri is not None and artifact_path is not None:
        raise typer.BadParameter("--artifact-path goes with --run-id; append the path to --artifact-uri")
    uri = artifact_uri or f"runs:/{run_id}/{(artifact_path or '').strip('/')}"
    download_uri(uri, dst_path, tracking_uri)


@app.command(
    "log-artifact",
    **example("runstream artifacts log-artifact -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --local-file model.pkl"),
)
def log_artifact(
    local_file: Annotated[Path, typer.Option("--local-file", "-l", metavar="FILE", help="File to upload.")],
    run_id: RunId,
    artifact_path: Annotated[
        str | None,
        typer.Option("--artifact-path", "-a", metavar="PATH", help="Folder in the run (default: the root)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Upload a file as an artifact of a run."""
    if not local_file.is_file():
        fail(f"there is no file {str(local_file)!r}")
    from runstream._commands import transfers

    transfers.upload(tracking_uri, run_id, [(local_file, artifact_path)])
    done(f"Logged {local_file} to run {run_id}")


@app.command(
    "log-artifacts",
    **example(
        "runstream artifacts log-artifacts -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --local-dir ./plots -a plots"
    ),
)
def log_artifacts(
    local_dir: Annotated[Path, typer.Option("--local-dir", "-l", metavar="DIR", help="Folder to upload.")],
    run_id: RunId,
    artifact_path: Annotated[
        str | None,
        typer.Option("--artifact-path", "-a", metavar="PATH", help="Folder in the run (default: the root)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Upload all files below a folder as artifacts of a run."""
    if not local_dir.is_dir():
        fail(f"there is no folder {str(local_dir)!r}")
    files = sorted(path for path in local_dir.rglob("*") if path.is_file())
    if not files:
        fail(f"folder {str(local_dir)!r} has no files")
    places = [(file, _below(artifact_path, file.relative_to(local_dir).parent)) for file in files]
    from runstream._commands import transfers

    transfers.upload(tracking_uri, run_id, places)
    done(f"Logged {len(files)} files of {local_dir} to run {run_id}")


def download_uri(uri: str, dst_path: Path | None, tracking_uri: str | None) -> None:
    """Download what a URI names and print its local path. Raises: NotFound; InvalidParameter."""
    from runstream._commands import transfers

    done(transfers.download(tracking_uri, uri, dst_path))


def _below(folder: str | None, relative: Path) -> str | None:
    """Return the run's folder for a file that lies in `relative` of the folder that is uploaded."""
    parts = [(folder or "").strip("/"), "" if relative == Path() else relative.as_posix()]
    return "/".join(part for part in parts if part) or None


def _walk(client: Client, run_id: str, path: str | None, recursive: bool) -> list[FileInfo]:
    found: list[FileInfo] = []
    for file in client.list_artifacts(run_id, path):
        found.append(file)
        if recursive and file.is_dir:
            found += _walk(client, run_id, file.path, True)
    return found
