"""Forked children of a process that uses gRPC itself: there gRPC hangs, so calls go through the sender."""

import os

from runstream._transport import RelayTransport


def in_child(work):
    """Run `work` in a forked child; return what it wrote, or the child's error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, str(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_client_that_was_used_before_a_fork_works_in_the_child(rs, server):
    with rs.Client(server.grpc_uri, timeout=20.0) as client:
        run_id = client.create_run("0").info.run_id
        client.log_metric(run_id, "parent", 1.0)

        def work():
            client.log_metric(run_id, "child", 2.0)
            assert isinstance(client.transport, RelayTransport)
            return sorted(client.get_run(run_id).data.metrics)

        assert in_child(work) == "['child', 'parent']"
        assert not isinstance(client.transport, RelayTransport)
        assert client.get_run(run_id).data.metrics == {"parent": 1.0, "child": 2.0}
