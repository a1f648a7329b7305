"""Programs in Java and R against a server."""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
HINTS = {
    "java": "MLflow's Java client needs a JDK and Maven: apt-get install -y openjdk-17-jdk-headless maven",
    "r": "R needs: apt-get install -y r-base-core r-cran-httr r-cran-jsonlite",
}


def missing(language: str) -> str | None:
    """Return how to get what a language needs, None when it is there."""
    programs = {"java": ("java", "javac", "mvn"), "r": ("Rscript",)}[language]
    return None if all(map(shutil.which, programs)) else HINTS[language]


def build_java(folder: Path) -> str:
    """Compile tests/compat/java into `folder`; return its class path. Raises: CalledProcessError."""
    project = HERE / "java" / "pom.xml"
    libraries = folder / "classpath"
    # Maven's newest plug-ins are not asked for: the ones that this Maven brings are enough.
    goals = ["dependency:build-classpath", f"-Dmdep.outputFile={libraries}"]
    command = ["mvn", "-q", "-B", "-f", str(project), f"-DbuildFolder={folder}", *goals]
    subprocess.run(command, check=True, timeout=600)
    path = f"{libraries.read_text()}:{folder}"
    sources = map(str, sorted((HERE / "java" / "src").rglob("*.java")))
    subprocess.run(["javac", "-d", str(folder), "-cp", path, *sources], check=True, timeout=300)
    return path


def run_java(class_path: str, url: str, points: int) -> str:
    """Run the Java program with a history of `points`; return what it prints."""
    return _run(["java", "-Duser.name=java", "-cp", class_path, "Tracking", url, str(points)])


def build_grpc_java(folder: Path) -> str:
    """Generate and compile examples/java into `folder`; return its class path. Raises: CalledProcessError."""
    project = HERE.parents[1] / "examples" / "java" / "pom.xml"
    libraries = folder / "classpath"
    goals = ["compile", "dependency:build-classpath", f"-Dmdep.outputFile={libraries}"]
    command = ["mvn", "-q", "-B", "-f", str(project), f"-DbuildFolder={folder}", *goals]
    subprocess.run(command, check=True, timeout=600)
    return f"{libraries.read_text()}:{folder / 'classes'}"


def run_grpc_java(class_path: str, address: str, steps: int) -> str:
    """Run the Java example of gRPC against HOST:PORT; return what it prints."""
    return _run(["java", "-cp", class_path, "Train", address, str(steps)])


def run_r(url: str) -> str:
    """Run the R program; return what it prints."""
    return _run(["Rscript", str(HERE / "r" / "tracking.R"), url])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
