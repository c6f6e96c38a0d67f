"""Over a real sshd on the loopback."""

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ports import free_port
from satellite_fixture import bundle
from sshd_fixture import make_key
from waiting import PATIENCE, eventually

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import bootstrap, ssh
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.hosts.ssh_login import has_aes
from dagster_slurm_components.spec.hosts import LocalHost

pytestmark = pytest.mark.ssh


@pytest.fixture
def reach():
    """Make hosts that are closed at the end."""
    hosts = []

    def make(spec, **changes) -> RemoteHost:
        host = RemoteHost(SshDialer(spec, **changes), clock=iter(range(0, 10**9, 1000)).__next__)
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        host.close()


def test_calls_go_over_one_connection(sshd, reach):
    host = reach(sshd.spec())
    remote = Satellite(host)
    assert remote.hello().user == sshd.spec().user
    assert remote.run(["cat"], input=b"\0\xff" * 500_000).stdout == b"\0\xff" * 500_000
    with ThreadPoolExecutor(8) as pool:
        assert [done.stdout for done in pool.map(lambda n: remote.run(["echo", str(n)]), range(50))] == [
            f"{n}\n".encode() for n in range(50)
        ]
    assert sshd.logins() == 1
    assert host.name == f"{sshd.spec().user}@127.0.0.1:{sshd.port}"


def test_the_socket_sends_at_once(sshd, reach):
    host = reach(sshd.spec())
    host.call("ping", {})
    times = []
    for _ in range(400):
        started = time.perf_counter()
        host.call("ping", {})
        times.append(time.perf_counter() - started)
    # Some of them, for other work on the machine may hold up the others; Linux spares the first dozen calls the wait.
    assert sorted(times[20:])[25] < 0.02, "Nagle's algorithm would cost 40 ms a call"


def test_submit_by_one_call(sshd, reach, slurm, workdir):
    request = slurm.request(workdir)
    remote = Satellite(reach(sshd.spec()))
    reply = remote.submit(request, bundle({"job.sh": os.urandom(300_000)}))
    assert [reply.job_id] == slurm.jobs()
    assert remote.submit(request, b"").outcome == "known"


def test_variables_that_the_login_sets_for_slurm_reach_no_command(sshd_factory, reach):
    server = sshd_factory("SetEnv SBATCH_PARTITION=wrong SQUEUE_FORMAT=wrong LANG=de_DE.UTF-8")
    environment = Satellite(reach(server.spec())).run(["env"]).stdout.decode()
    assert "wrong" not in environment
    assert "LC_ALL=C\n" in environment


class TestHostKeys:
    def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_way_to_trust_it(self, sshd, reach):
        sshd.known_hosts.write_text("")
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(sshd.host_key)], capture_output=True, text=True, check=True
        )
        with pytest.raises(HostRefusedError, match="is not known") as caught:
            reach(sshd.spec()).call("ping", {})
        message = str(caught.value)
        assert shown.stdout.split()[1] in message
        assert str(sshd.known_hosts) in message
        assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {sshd.known_hosts}" in message
        assert sshd.logins() == 0
        assert sshd.known_hosts.read_text() == "", "nothing is added by itself"

    def test_the_way_to_trust_it_works(self, sshd, reach):
        scan = ["ssh-keyscan", "-p", str(sshd.port), "127.0.0.1"]
        sshd.known_hosts.write_bytes(subprocess.run(scan, capture_output=True, check=True).stdout)
        reach(sshd.spec()).call("ping", {})

    def test_a_changed_key_stops_everything_and_names_the_line(self, sshd, reach, tmp_path):
        sshd.trust(make_key(tmp_path / "other"))
        with pytest.raises(HostRefusedError, match=f"HAS CHANGED(.|\n)*{sshd.known_hosts}:1 ") as caught:
            reach(sshd.spec()).call("ping", {})
        assert caught.value.where == f"{sshd.spec().user}@127.0.0.1:{sshd.port}"
        assert sshd.logins() == 0

    def test_one_of_several_keys_of_a_name_is_enough(self, sshd, reach, tmp_path):
        known = sshd.known_hosts.read_text()
        sshd.trust(make_key(tmp_path / "other"))
        sshd.known_hosts.write_text(sshd.known_hosts.read_text() + known)
        reach(sshd.spec()).call("ping", {})

    def test_the_host_is_asked_for_the_kind_of_key_that_is_known(self, sshd_factory, reach, tmp_path):
        rsa = make_key(tmp_path / "rsa", "rsa")
        server = sshd_factory(f"HostKey {rsa}")
        reach(server.spec()).call("ping", {})
        server.trust(rsa)
        reach(server.spec()).call("ping", {})

    def test_the_users_own_known_hosts_is_the_default(self, sshd, reach, own_home):
        spec = sshd.spec(known_hosts_file=None)
        with pytest.raises(HostRefusedError, match=str(own_home)):
            reach(spec).call("ping", {})
        (own_home / ".ssh" / "known_hosts").write_text(sshd.known_hosts.read_text())
        reach(spec).call("ping", {})


class TestLogin:
    def test_a_wrong_key_is_refused_with_what_was_tried_and_what_is_offered(self, sshd, reach, tmp_path):
        wrong = make_key(tmp_path / "wrong key")
        with pytest.raises(HostRefusedError, match="accepted no key") as caught:
            reach(sshd.spec(key_file=str(wrong))).call("ping", {})
        assert f"{wrong}: not accepted" in str(caught.value)
        assert "it offers: publickey" in str(caught.value)

    def test_a_key_with_a_passphrase_is_named(self, sshd, reach, tmp_path):
        locked = make_key(tmp_path / "locked", passphrase="secret")
        (sshd.folder / "authorized_keys").write_text(locked.with_suffix(".pub").read_text())
        with pytest.raises(HostRefusedError, match="locked: has a passphrase: ssh-add it"):
            reach(sshd.spec(key_file=str(locked))).call("ping", {})

    def test_a_missing_key_file_is_named(self, sshd, reach):
        with pytest.raises(HostRefusedError, match="no key file /no/such/key"):
            reach(sshd.spec(key_file="/no/such/key")).call("ping", {})

    def test_without_a_key_file_those_in_the_home_folder_are_tried(self, sshd, reach, own_home):
        spec = sshd.spec(key_file=None)
        with pytest.raises(HostRefusedError, match="accepted no key"):
            reach(spec).call("ping", {})
        (own_home / ".ssh" / "id_ed25519").write_bytes(sshd.client_key.read_bytes())
        (own_home / ".ssh" / "id_ed25519").chmod(0o600)
        reach(spec).call("ping", {})

    def test_the_agent_is_asked(self, sshd, reach, tmp_path, monkeypatch):
        address = str(tmp_path / "agent")
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", address)
            eventually(lambda: os.path.exists(address), "the agent listens")
            subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, capture_output=True)
            reach(sshd.spec(key_file=None)).call("ping", {})
        finally:
            agent.kill()
            agent.wait()

    def test_a_second_factor_is_told_and_nothing_is_asked_on_the_terminal(self, sshd_factory, reach):
        server = sshd_factory(
            "AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes"
        )
        with pytest.raises(
            HostRefusedError, match=r"wants more(.|\n)*keyboard-interactive(.|\n)*dg-slurm login"
        ):
            reach(server.spec()).call("ping", {})

    def test_a_host_that_hangs_up_after_too_many_keys_is_a_refusal(self, sshd_factory, reach, own_home):
        server = sshd_factory("MaxAuthTries 2")
        for kind in ("ed25519", "ecdsa", "rsa"):
            make_key(own_home / ".ssh" / f"id_{kind}", kind)
        with pytest.raises(
            HostRefusedError, match=r"hung up after these keys(.|\n)*id_ed25519: not accepted"
        ):
            reach(server.spec(key_file=None)).call("ping", {})


class TestConfiguration:
    def test_ssh_config_gives_what_the_spec_leaves_open(self, sshd, reach, own_home):
        (own_home / ".ssh" / "config").write_text(
            f"Host cluster\n  HostName 127.0.0.1\n  Port {sshd.port}\n  IdentityFile {sshd.client_key}\n"
            f"  UserKnownHostsFile {sshd.known_hosts}\n"
        )
        spec = type(sshd.spec()).model_validate({"hostname": "cluster"})
        assert Satellite(reach(spec)).hello().user

    def test_the_spec_wins_over_ssh_config(self, sshd, reach, own_home):
        (own_home / ".ssh" / "config").write_text(
            "Host *\n  Port 1\n  User nobody-here\n  IdentityFile /no/such\n"
        )
        reach(sshd.spec()).call("ping", {})

    def test_processors_that_know_aes(self, tmp_path):
        cpus = tmp_path / "cpuinfo"
        for text, has in {
            "flags\t\t: fpu aes avx2\n": True,
            "flags\t\t: fpu vaes\n": False,
            "Features\t: fp asimd aes crc32\n": True,
            "model name\t: aes\nFeatures\t: fp asimd\n": False,
        }.items():
            cpus.write_text(text)
            assert has_aes(cpus) is has
        assert has_aes(tmp_path / "of no Linux")

    @pytest.mark.parametrize("asked", ["aes256-ctr", None])
    def test_the_quickest_cipher_is_taken_unless_ssh_config_names_another(
        self, sshd_factory, reach, own_home, asked
    ):
        sshd = sshd_factory("LogLevel DEBUG1")
        if asked:
            (own_home / ".ssh" / "config").write_text(f"Host *\n  Ciphers {asked}\n")
        reach(sshd.spec()).call("ping", {})
        used = re.findall(r"kex: client->server cipher: (\S+)", sshd.log.read_text())
        quick = (
            "aes128-gcm@openssh.com" if has_aes(Path("/proc/cpuinfo")) else "chacha20-poly1305@openssh.com"
        )
        assert used == [asked or quick]

    @pytest.mark.parametrize("way", ["spec", "config"])
    def test_a_jump_host_is_gone_through_and_checked(self, sshd_factory, reach, own_home, way):
        bastion, target = sshd_factory(), sshd_factory()
        (bastion.folder / "authorized_keys").write_text((target.client_key.with_suffix(".pub")).read_text())
        both = bastion.known_hosts.read_text() + target.known_hosts.read_text()
        target.known_hosts.write_text(both)
        if way == "spec":
            spec = target.spec(jump=[f"{target.spec().user}@127.0.0.1:{bastion.port}"])
        else:
            (own_home / ".ssh" / "config").write_text(
                f"Host target\n  HostName 127.0.0.1\n  ProxyJump {target.spec().user}@bastion:{bastion.port}\n"
                f"Host bastion\n  HostName 127.0.0.1\n  IdentityFile {target.client_key}\n"
            )
            spec = target.spec(hostname="target")
        Satellite(reach(spec)).hello()
        assert (bastion.logins(), target.logins()) == (1, 1)
        target.trust(target.host_key)  # forgets the bastion
        with pytest.raises(HostRefusedError, match="is not known") as caught:
            reach(spec).call("ping", {})
        assert f":{bastion.port}" in str(caught.value.where)
        assert (bastion.logins(), target.logins()) == (1, 1)

    def test_a_target_that_the_jump_host_cannot_reach_is_unreachable(self, sshd, reach):
        spec = sshd.spec(port=free_port(), jump=[{"hostname": "127.0.0.1", "port": sshd.port}])
        with pytest.raises(HostUnreachableError, match="can't reach it"):
            reach(spec).call("ping", {})


class TestLosses:
    def test_a_cut_connection_wakes_the_waiting_and_the_next_call_dials_again(self, sshd, reach, tmp_path):
        remote = Satellite(reach(sshd.spec()))
        remote.hello()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(remote.run, ["sh", "-c", f": >'{tmp_path}/begun'; exec sleep 300"])
            eventually((tmp_path / "begun").exists, "the call is under way")
            assert sshd.cut()
            with pytest.raises(HostUnreachableError, match="lost"):
                waiting.result(PATIENCE)
        assert remote.run(["echo", "again"]).stdout == b"again\n"
        assert sshd.logins() == 2

    def test_a_stopped_sshd_is_unreachable_until_it_is_back(self, sshd, reach):
        host = reach(sshd.spec())
        host.call("ping", {})
        sshd.stop()
        for _ in range(2):
            with pytest.raises(HostUnreachableError):
                host.call("ping", {})
        sshd.start()
        host.call("ping", {})

    def test_an_unknown_name_and_a_closed_port_are_unreachable_at_once(self, sshd, reach):
        for changes in ({"hostname": "no-such-host.invalid"}, {"port": free_port()}):
            started = time.monotonic()
            with pytest.raises(HostUnreachableError, match="can't connect"):
                reach(sshd.spec(connect_timeout=3600, **changes)).call("ping", {})
            assert time.monotonic() - started < PATIENCE

    def test_a_server_that_never_speaks_is_unreachable(self, sshd, reach):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            spec = sshd.spec(port=mute.getsockname()[1], connect_timeout=0.3)
            slept = []
            with pytest.raises(HostUnreachableError, match="hung up"):
                reach(spec, sleep=slept.append, jitter=lambda: 0.5).call("ping", {})
        assert slept == list(ssh.PAUSES)

    def test_newcomers_that_sshd_drops_come_back_and_all_get_in(self, sshd_factory):
        server = sshd_factory("MaxStartups 2:100:2")
        hosts = [RemoteHost(SshDialer(server.spec())) for _ in range(10)]
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(lambda host: host.call("ping", {}), hosts))
        for host in hosts:
            host.close()
        assert server.logins() == len(hosts)

    def test_lost_connections_leave_no_traceback_on_the_terminal(self, sshd, reach, capfd):
        host = reach(sshd.spec())
        host.call("ping", {})
        sshd.cut()
        for _ in range(100):
            if not host.connected:
                break
            time.sleep(0.02)
        host.close()
        assert capfd.readouterr() == ("", "")


class TestStart:
    def test_noise_of_the_login_is_passed_over(self, sshd_factory, reach, tmp_path):
        banner = tmp_path / "banner"
        banner.write_text("*** authorised users only ***\n" * 50)
        force = (
            'ForceCommand echo "Welcome to the cluster"; echo quota >&2; exec sh -c "$SSH_ORIGINAL_COMMAND"'
        )
        server = sshd_factory(f"Banner {banner}", force)
        assert Satellite(reach(server.spec())).hello().user

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_a_login_that_prints_too_much_is_refused_with_its_first_words(self, sshd_factory, reach, stream):
        noise = "{ echo Loading modules; head -c 170000 /dev/zero | tr '\\000' x; }"
        to, end = ("", 'exec sh -c "$SSH_ORIGINAL_COMMAND"') if stream == "stdout" else (" >&2", "exit 1")
        server = sshd_factory(f"ForceCommand {noise}{to}; {end}")
        with pytest.raises(
            HostRefusedError, match=r"more than 64 KiB(.|\n)*beginning with:\nLoading modules\n"
        ):
            reach(server.spec()).call("ping", {})

    def test_a_host_that_is_slow_to_start_once_costs_no_login(
        self, sshd_factory, reach, tmp_path, monkeypatch
    ):
        once, twice = tmp_path / "once", tmp_path / "twice"
        slow = f"test -e {twice} || {{ test -e {once} && touch {twice}; touch {once}; exec sleep 3600; }}; "
        slow += 'exec sh -c "$SSH_ORIGINAL_COMMAND"'
        monkeypatch.setattr(ssh, "_START_TIMEOUT", 5.0)
        server = sshd_factory(f"ForceCommand {slow}")
        host = reach(server.spec())
        logins = []
        for _ in range(2):
            with pytest.raises(HostUnreachableError, match="did not start within 5 s"):
                host.call("ping", {})
            logins.append(server.logins())
        monkeypatch.setattr(ssh, "_START_TIMEOUT", PATIENCE)
        host.call("ping", {})
        assert (*logins, server.logins()) == (1, 1, 2), "after two the connection may be dead"

    def test_one_session_is_enough(self, sshd_factory, reach, monkeypatch):
        monkeypatch.setattr(bootstrap, "PYTHONS", ("/no/python3", "python3"))
        remote = Satellite(reach(sshd_factory("MaxSessions 1").spec()))
        with ThreadPoolExecutor(5) as pool:
            assert {
                done.returncode for done in pool.map(lambda _: remote.run(["sleep", "0.1"]), range(20))
            } == {0}

    def test_a_host_without_python_is_refused_with_what_was_tried(self, sshd, reach, monkeypatch):
        monkeypatch.setattr(bootstrap, "PYTHONS", ("/no/python3", "/no/platform-python"))
        with pytest.raises(
            HostRefusedError, match=r"no Python 3\.6(.|\n)*/no/python3(.|\n)*/no/platform-python"
        ):
            reach(sshd.spec()).call("ping", {})

    def test_an_account_for_files_only_is_refused_with_its_words(self, sshd_factory, reach):
        server = sshd_factory("ForceCommand echo this account is for sftp only; exit 1")
        with pytest.raises(HostRefusedError, match="this account is for sftp only"):
            reach(server.spec()).call("ping", {})

    def test_no_sessions_at_all_is_a_refusal(self, sshd_factory, reach):
        with pytest.raises(HostRefusedError, match="opens no session"):
            reach(sshd_factory("MaxSessions 0").spec(), sleep=lambda seconds: None).call("ping", {})


class TestConnect:
    def test_one_host_for_one_spec(self, sshd):
        first, second = connect(sshd.spec()), connect(sshd.spec())
        assert first is second
        assert connect(sshd.spec(user="other")) is not first
        assert connect(LocalHost()) is connect(LocalHost())
        assert connect(LocalHost()).name == "local"

    def test_nothing_is_dialed_and_no_ssh_library_imported_before_it_is_needed(self):
        program = (
            "import sys\n"
            "from dagster_slurm_components.hosts import connect\n"
            "from dagster_slurm_components.spec.hosts import LocalHost, SshHost\n"
            "connect.connect(LocalHost()).call('ping', {})\n"
            "connect.connect(SshHost(hostname='h.invalid'))\n"
            "assert not {'paramiko', 'fabric', 'invoke', 'cryptography'} & set(sys.modules)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_satellites_end_with_their_connection(sshd, reach):
    host = reach(sshd.spec())
    pid = host.call("hello", {}).result["pid"]
    host.close()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), f"satellite {pid} ends")


def alive_in(session: int) -> list[str]:
    """Return the programs that run in a session of processes."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "sess=,stat=,comm="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return [
        program for number, state, program in rows if number == str(session) and not state.startswith("Z")
    ]


class TestPythonAndSetup:
    """A site whose ``python3`` is a module: nothing of that name is on the login's ``PATH``."""

    @pytest.fixture
    def modules(self, tmp_path):
        """A folder of programs that a setup can put on ``PATH``: one that passes on, an old one, and no ``python3``."""
        folder = tmp_path / "opt" / "a 'module'" / "bin"
        folder.mkdir(parents=True)
        (folder / "python3.99").symlink_to(sys.executable)
        old = folder / "python2"
        old.write_text("#!/bin/sh\necho 'needs Python 3.6 or newer, this is 2.7.5' >&2; exit 1\n")
        old.chmod(0o755)
        return folder

    @pytest.fixture
    def bare(self, sshd_factory, tmp_path):
        """A login on whose ``PATH`` is all but Python."""
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in ("bash", "sh", "sleep", "env", "cat"):
            (tools / name).symlink_to(
                f"/bin/{name}" if os.path.exists(f"/bin/{name}") else f"/usr/bin/{name}"
            )
        clean = f"/usr/bin/env -i HOME={tmp_path / 'home'} PATH={tools}"  # a developer's .bashrc brings Pythons, too
        return sshd_factory(f'ForceCommand exec {clean} /bin/bash -c "$SSH_ORIGINAL_COMMAND"')

    def test_a_setup_brings_the_python_that_the_host_names(self, bare, reach, modules):
        with pytest.raises(
            HostRefusedError, match=r"no Python 3\.6(.|\n)*python3: (.|\n)*`python`(.|\n)*`setup`"
        ):
            reach(bare.spec()).call("ping", {})
        setup = [
            "module() { PATH=$PATH:\"$2\"; }\n: 'two lines'",
            f'module load "{modules}"',
            'export SEEN="it\'s" SLURM_CONF=/there/slurm.conf',
        ]
        remote = Satellite(reach(bare.spec(python="python3.99", setup=setup)))
        facts = remote.hello(["SEEN"])
        assert (facts.executable, facts.environment) == (str(modules / "python3.99"), {"SEEN": "it's"})
        shown = remote.run(["sh", "-c", "echo $DAGSTER_SLURM_HOST_PYTHON $SLURM_CONF"]).stdout
        assert shown == b"python3.99 /there/slurm.conf\n", "what Slurm's commands need may be exported there"

    @pytest.mark.parametrize("where", ["path", "home"])
    def test_a_path_names_it_without_any_setup(self, bare, reach, modules, own_home, where):
        python = str(modules / "python3.99")
        if where == "home":
            home = Satellite(reach(bare.spec(python=python))).hello().home
            python = f"~/{os.path.relpath(python, home)}"
        assert Satellite(reach(bare.spec(python=python))).hello().executable.endswith("/bin/python3.99")

    @pytest.mark.parametrize(
        ("python", "said"),
        [("/no/python3", "/no/python3: (.|\n)*No such file"), ("python2", "python2: (.|\n)*this is 2.7.5")],
    )
    def test_f52_one_that_is_missing_or_too_old_is_told_with_what_to_do(
        self, bare, reach, modules, python, said
    ):
        spec = bare.spec(python=python, setup=[f'PATH=$PATH:"{modules}"'])
        with pytest.raises(
            HostRefusedError, match=f"no Python 3.6(.|\n)*{said}(.|\n)*Name another"
        ) as caught:
            reach(spec).call("ping", {})
        assert caught.value.where == f"{spec.user}@127.0.0.1:{bare.port}"
        assert "platform-python" not in str(caught.value), "a Python that the user chose is the only one"

    def test_a_setup_may_print_and_read(self, sshd, reach):
        setup = ["echo Loading; echo done >&2; printf '\\000dagster'; cat", "set -- a b c; IFS=x; cd /tmp"]
        assert Satellite(reach(sshd.spec(setup=setup))).hello().user

    @pytest.mark.parametrize("last", ["no-such-module-command load python", "echo gone; exit 3", "false"])
    def test_f52_a_setup_that_fails_is_refused_with_its_command(self, sshd, reach, last):
        with pytest.raises(HostRefusedError, match="Loading modules") as caught:
            reach(sshd.spec(setup=["echo Loading modules", last])).call("ping", {})
        told = str(caught.value)
        assert ("exit status 3" if "exit" in last else "of the profile's host ended with status") in told
        assert "exit" in last or f": {last}" in told
        assert sshd.logins() == 1

    def test_f52_a_setup_that_hangs_is_ended_there_and_costs_no_login(self, sshd, reach, monkeypatch):
        monkeypatch.setattr(bootstrap, "_SETUP_SECONDS", 3)
        spec = sshd.spec(setup=["echo $$", "sleep 987654 & wait", "true"])
        host = reach(spec)
        for _ in range(2):
            with pytest.raises(
                HostUnreachableError, match=r"did not end within 3 s(.|\n)*printed:\n(\d+)"
            ) as caught:
                host.call("ping", {})
            group = int(str(caught.value).split("printed:\n")[1].split()[0])
            assert group != os.getpgid(0)
            eventually(lambda: not alive_in(group), "it is ended")  # noqa: B023
        assert sshd.logins() == 1

    def test_a_setup_leaves_nothing_running(self, sshd, reach):
        host = reach(sshd.spec(setup=["echo"]))
        pid = host.call("hello", {}).result["pid"]
        assert [program[:6] for program in alive_in(os.getsid(pid))] == ["python"]
