"""One step of Vagrant in a process of its own, `python -m graphdriver_vms.machines.step`.

Its arguments are DIRECTORY STEP NAME. python-vagrant has no time limits; this process can be ended
with all its children, by its process group.
"""

import os
import subprocess
import sys

import vagrant

__all__: list[str] = []


def _main(directory: str, step: str, name: str) -> None:
    inherited = vagrant.make_file_cm("/dev/stderr", "a")
    machines = vagrant.Vagrant(directory, env=dict(os.environ), out_cm=inherited, err_cm=inherited)
    provider = os.environ["VAGRANT_DEFAULT_PROVIDER"]
    if step == "up":
        machines.up(vm_name=name, provider=provider)
    elif step == "ssh-config":
        print(machines.ssh_config(vm_name=name))
    elif step == "destroy":
        machines.destroy(vm_name=name)
    elif step == "box":
        had = {(box.name, box.provider) for box in machines.box_list()}
        if (name, provider) not in had:
            # Its address is its name: Vagrant looks it up in its catalog.
            machines.box_add(name, name, provider=provider)
    else:
        raise SystemExit(f"no step {step}")


try:
    _main(*sys.argv[1:])
except subprocess.CalledProcessError as failed:
    # Vagrant has printed the error; a Python traceback would hide it.
    sys.exit(failed.returncode)
