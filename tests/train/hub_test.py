"""Processes meet at a hub: wrong numbers, absences and deaths are told to all of them, in one line."""

import queue
import re
import socket
import threading

import pytest

from rlx.errors import UserError
from rlx.train import processes
from rlx.train.hub import Hub, Member, Wire
from rlx.train.relay import Relay
from tests.train.two_processes import free_port

TIMES = {"patience": 10.0, "silence": 10.0}


class Meeting:
    """A hub, and what its members have come to hear."""

    def __init__(self, count, **times):
        server = socket.create_server(("localhost", 0))
        self.address = server.getsockname()
        self.times, self.count = TIMES | times, count
        self.hub = Hub(server, count, welcome="hello", **self.times)
        self.members, self.reasons = {}, queue.Queue()

    def join(self, *indices, count=None):
        """Members in threads of their own; returns those that were let in, and the errors of the others."""
        errors = {}

        def come(place, index):
            try:
                own = {"over": self.reasons.put, **self.times}
                self.members[place] = Member(self.address, index, count or self.count, **own)
            except UserError as error:
                errors[place] = str(error)

        threads = [threading.Thread(target=come, args=pair) for pair in enumerate(indices, len(self.members))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    def all_do(self, *functions):
        threads = [threading.Thread(target=function) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self):
        for member in self.members.values():
            member.fail("")
            member._wire.close()
        self.hub.close()


@pytest.fixture
def meeting():
    opened = []

    def make(count, **times):
        opened.append(Meeting(count, **times))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_members_hear_what_all_say(meeting):
    three = meeting(3)
    assert three.join(0, 1, 2) == {} and three.members[0].welcome == "hello"
    groups, heard = [processes.Group(member) for member in three.members.values()], {}

    def talk(group):
        first = group.lead(lambda: group.index + 10)
        with pytest.raises(UserError, match="no room"):
            group.lead(refuse)
        heard[group.index] = (first, group.gather({"x": float(group.index)}), group.first(lambda: group.index))
        group.member.leave()

    def refuse():
        raise UserError("no room")

    three.all_do(*(lambda group=group: talk(group) for group in groups))
    values = [{"x": 0.0}, {"x": 1.0}, {"x": 2.0}]
    assert heard == {i: (10, values, i) for i in range(3)} and three.reasons.empty()


def test_processes_of_different_configs_are_refused_by_what_differs(meeting):
    two, heard = meeting(2), []
    two.join(0, 1)

    def talk(member):
        own = processes.Group(member)
        processes.check_same(own, {"seed": 0})
        with pytest.raises(UserError) as error:
            processes.check_same(own, {"seed": 0, "method": {"beta": 0.1 + member.index}})
        heard.append(str(error.value))

    two.all_do(*(lambda member=member: talk(member) for member in two.members.values()))
    assert heard == ["process 1 has another config than process 0 (method.beta: 0.1 -> 1.1): give all the same."] * 2


def test_processes_that_nobody_has_started_are_refused(monkeypatch):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="jax has 2 processes that know nothing of this run"):
        processes.check_started()


def test_a_member_that_goes_is_missed_by_all_others(meeting):
    three = meeting(3)
    three.join(0, 1, 2)
    gone = next(member for member in three.members.values() if member.index == 1)
    gone._leaving = True
    gone._wire.close()
    assert {three.reasons.get(timeout=10) for _ in range(2)} == {"process 1 of 3 has ended without a word"}


def test_a_member_that_fails_says_why(meeting):
    two = meeting(2)
    two.join(0, 1)
    next(member for member in two.members.values() if member.index == 1).fail("no data")
    assert two.reasons.get(timeout=10) == "process 1 of 2 has ended: no data"


def test_a_member_that_is_silent_is_missed(meeting, monkeypatch):
    monkeypatch.setattr("rlx.train.hub.Wire.beat", lambda wire: None)
    two = meeting(2, silence=0.2)
    two.join(0, 1)
    assert "no sign of life" in two.reasons.get(timeout=10)


@pytest.mark.parametrize(
    "indices, count, message",
    [
        ((0, 1, 1), 3, "two processes were started with --process_id=1: start all of them"),
        ((0, 1), 2, "process 0 was started with --num_processes=3, process . with 2"),
    ],
)
def test_wrong_numbers_are_refused(meeting, indices, count, message):
    errors = meeting(3, patience=0.5).join(*indices, count=count)
    assert any(re.search(message, error) for error in errors.values()), errors


def test_those_who_do_not_come_are_named(meeting):
    (error,) = meeting(3, patience=0.2).join(0).values()
    assert error.startswith("processes 1, 2 of 3 did not come within 0.2 s (--start_timeout)")


def test_a_coordinator_that_is_not_there_is_told():
    times = {"patience": 0.3, "silence": 1.0}
    with pytest.raises(
        UserError, match=r"no coordinator answers at localhost:\d+ within 0.3 s .*: start process 0 there"
    ):
        Member(("localhost", free_port()), 1, 2, over=print, **times)


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        plan = processes.plan_of({"coordinator": f"localhost:{port}", "num_processes": "2", "process_id": "0"}, {})
        with pytest.raises(UserError, match=f"port {port} of this machine cannot be used .Address already in use"):
            processes._explicit(plan)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"coordinator": "h:1"}, r"--num_processes is missing \(or JAX_NUM_PROCESSES\)"),
        ({"coordinator": "h", "num_processes": "2", "process_id": "0"}, "--coordinator=h must be HOST:PORT"),
        (
            {"coordinator": "h:1", "num_processes": "two", "process_id": "0"},
            "--num_processes takes a number, not 'two'",
        ),
        ({"distributed": True, "start_timeout": "-1"}, "--start_timeout must be above 0"),
    ],
)
def test_options_that_are_wrong(options, message):
    with pytest.raises(UserError, match=message):
        processes.plan_of(options, {})


def test_where_a_process_finds_the_others():
    environment = {"JAX_COORDINATOR_ADDRESS": "[::1]:7", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    plan = processes.plan_of({"start_timeout": "5"}, environment)
    assert plan == processes.Plan(("::1", 7), 2, 1, 5.0, 60.0)
    assert processes.plan_of({"distributed": True}, {}).coordinator is None and processes.plan_of({}, {}) is None


def test_one_that_goes_before_all_have_come_is_missed(meeting):
    three = meeting(3)
    first = threading.Thread(target=lambda: heard.update(three.join(0)))
    heard = {}
    first.start()
    wire = Wire(socket.create_connection(three.address), 10)
    wire.say(hello=1, of=3)
    wire.close()
    assert wire.hear() is None
    first.join()
    assert heard[0].startswith("process 1 of 3 has ended without a word: start all of them")


def test_a_relay_hides_the_end_of_its_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay(server.getsockname())
        host, port = relay.address.split(":")
        with socket.create_connection((host, int(port)), timeout=0.05) as client:
            far, _ = server.accept()
            with far:
                client.sendall(b"hello")
                far.sendall(far.recv(5) + b", too")
                told = b""
                while len(told) < 10:
                    told += client.recv(10)
                assert told == b"hello, too"
            for _ in range(5):
                client.sendall(b"still there?")
                with pytest.raises(TimeoutError):
                    client.recv(1)
        relay.close()
