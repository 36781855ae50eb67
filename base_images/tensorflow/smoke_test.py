"""What the build of the image checks.

python3 smoke_test.py --versions    print which versions the base image has, for pip to keep
python3 smoke_test.py               fail unless it still has them and a client can import what it needs
"""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("tensorflow", "protobuf", "numpy")

versions = [f"{package}=={version(package)}" for package in PACKAGES]
if sys.argv[1:] == ["--versions"]:
    print(*versions, sep="\n")
    sys.exit()

before = Path("base_image.txt").read_text().split()
if versions != before:
    sys.exit(f"the build changed packages of the base image: {' '.join(before)} are now {' '.join(versions)}")
for module in ("tensorflow", "flwr.client", "flwr_datasets"):
    importlib.import_module(module)
print("unchanged:", *versions)
