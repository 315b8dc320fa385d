"""Attacks that use up what others need: processes, memory, time, disk, descriptors, output."""

from __future__ import annotations

from hostile.attacks import Attack

from letta_sandbox.calls import CallEnding

ATTACKS = [
    Attack(
        "fork bomb",
        """
def attack(facts):
    children = 0
    try:
        while children < 300:
            if os.fork() == 0:
                time.sleep(3)
                os._exit(0)
            children += 1
    except OSError:
        pass
    return {"hit": children >= 70}
""",
    ),
    Attack(
        "raw clone, clone3 and vfork",
        """
def attack(facts):
    def child(pid):
        if pid == 0:
            os._exit(0)
        return pid > 0
    arguments = ctypes.create_string_buffer(struct.pack("=QQQQQQQQ", 0, 0, 0, 0, 17, 0, 0, 0), 64)
    return {"hit": child(syscall(56, 220, 17, 0, 0, 0, 0)) or child(syscall(435, 435, arguments, 64))}
""",
    ),
    Attack(
        "memory hog",
        """
def attack(facts):
    held = []
    while len(held) < 400:
        held.append(b"x" * (1 << 20))
    return {"hit": True}
""",
        status=(CallEnding.MEMORY,),
    ),
    Attack(
        "memory hog in threads",
        """
import threading
def attack(facts):
    held = []
    def take():
        try:
            for _ in range(100):
                held.append(b"x" * (1 << 20))
        except MemoryError:
            pass
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return {"hit": len(held) > 300}
""",
    ),
    Attack(
        "shared anonymous memory hog",
        """
import mmap
def attack(facts):
    area = mmap.mmap(-1, 400 << 20)
    for place in range(0, 400 << 20, 4096):
        area[place] = 1
    return {"hit": True}
""",
    ),
    Attack(
        "memfd hog",
        """
def attack(facts):
    file = os.memfd_create("x")
    for _ in range(400):
        os.write(file, b"x" * (1 << 20))
    return {"hit": True}
""",
    ),
    Attack(
        "growing stack hog",
        """
def attack(facts):
    libc.mmap.restype = ctypes.c_void_p
    got = 0
    for _ in range(100):
        place = libc.mmap(None, ctypes.c_size_t(4 << 20), 3, 0x122, -1, 0)
        if place in (None, ctypes.c_void_p(-1).value):
            break
        ctypes.memset(place, 1, 4 << 20)
        got += 4
    return {"hit": got > 300}
""",
    ),
    Attack(
        "System V shared memory hog",
        """
def attack(facts):
    identifier = syscall(29, 194, 0, 300 << 20, 0o1600)
    if identifier < 0:
        return {"hit": False}
    libc.shmat.restype = ctypes.c_void_p
    place = libc.shmat(int(identifier), None, 0)
    ctypes.memset(place, 1, 300 << 20)
    syscall(31, 195, int(identifier), 0, 0)
    return {"hit": True}
""",
    ),
    Attack("spin", "def attack(facts):\n    while True: pass\n", status=(CallEnding.TIMEOUT,)),
    Attack(
        "regular expression stuck in C",
        """
import re
def attack(facts):
    re.match(r"(a+)+$", "a" * 64 + "b")
""",
        status=(CallEnding.TIMEOUT,),
    ),
    Attack(
        "sleep with every signal blocked",
        """
import signal
def attack(facts):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    while True: time.sleep(1000)
""",
        status=(CallEnding.TIMEOUT,),
    ),
    Attack(
        "catch every exception and go on",
        """
def attack(facts):
    while True:
        try:
            while True: time.sleep(0.01)
        except BaseException:
            pass
""",
        status=(CallEnding.TIMEOUT,),
    ),
    Attack(
        "fill the disk",
        """
def attack(facts):
    written = 0
    for directory in ("/tmp", facts["directory"], "/dev/shm", "/var/tmp"):
        try:
            with open(directory + "/filler", "wb") as file:
                while written < 100:
                    file.write(b"x" * (1 << 20))
                    written += 1
        except OSError:
            continue
    return {"hit": written >= 100}
""",
    ),
    Attack(
        "use up the inodes",
        """
def attack(facts):
    made = 0
    try:
        while made < 20000:
            os.close(os.open(f"/tmp/file-{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError:
        pass
    return {"hit": made >= 20000}
""",
    ),
    Attack(
        "use up the descriptors",
        """
def attack(facts):
    import resource
    resource_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    worked(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (resource_limit[1], resource_limit[1])))
    held = []
    try:
        while len(held) < 1000:
            held += os.pipe()
    except OSError:
        pass
    return {"hit": len(held) >= 1000}
""",
    ),
    Attack(
        "500 threads",
        """
import threading
def attack(facts):
    stop = threading.Event()
    started = 0
    try:
        for _ in range(500):
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    stop.set()
    return {"hit": started > 200}
""",
    ),
    Attack(
        "raise the limits",
        """
def attack(facts):
    import resource
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        soft, hard = resource.getrlimit(kind)
        if worked(lambda: resource.setrlimit(kind, (hard, hard))):
            return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "wide pipes",
        """
import fcntl
def attack(facts):
    return {"hit": worked(lambda: fcntl.fcntl(os.pipe()[0], 1031, 1 << 20))}
""",
    ),
    Attack(
        "200 MB of standard output",
        """
def attack(facts):
    for _ in range(200):
        os.write(1, b"x" * (1 << 20))
    return {"hit": True}
""",
        status=(CallEnding.OUTPUT_LIMIT,),
    ),
    Attack(
        "200 MB of standard error in small pieces",
        """
def attack(facts):
    for _ in range(200 << 10):
        print("x" * 1023, file=sys.stderr)
    return {"hit": True}
""",
        status=(CallEnding.OUTPUT_LIMIT,),
    ),
    Attack(
        "50 MB result",
        'def attack(facts):\n    return {"hit": True, "ballast": "x" * (50 << 20)}\n',
        status=(CallEnding.OUTPUT_LIMIT,),
    ),
]
