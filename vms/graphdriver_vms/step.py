"""One step of Vagrant in a process of its own: `python -m graphdriver_vms.step DIR STEP NAME`.

python-vagrant has no time limits; this process does what it is asked to and can be ended, with all
that it started, by its process group.
"""

import os
import sys

import vagrant

__all__: list[str] = []


def _main(directory: str, step: str, name: str) -> None:
    inherited = vagrant.make_file_cm("/dev/stderr", "a")
    machines = vagrant.Vagrant(directory, env=dict(os.environ), out_cm=inherited, err_cm=inherited)
    if step == "up":
        machines.up(vm_name=name, provider=os.environ.get("VAGRANT_DEFAULT_PROVIDER"))
    elif step == "ssh-config":
        print(machines.ssh_config(vm_name=name))
    elif step == "destroy":
        machines.destroy(vm_name=name)
    else:
        raise SystemExit(f"no step {step}")


_main(*sys.argv[1:])
