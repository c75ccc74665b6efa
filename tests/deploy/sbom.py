"""Holds a bill of materials on standard input to CycloneDX's schema and to what it promises."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# In the program, and in none of it: crates of tests, and those that the manifest lacks on purpose.
NEEDED = {"tokio", "rustls", "aws-lc-sys", "libsqlite3-sys", "vaultrs"}
FOREIGN = {"proptest", "rcgen", "tempfile", "croner", "ring", "openssl"}

text = sys.stdin.read()
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if wrong:
    sys.exit(f"no valid CycloneDX: {wrong}")
bill = json.loads(text)
parts = bill["components"]
names = {part["name"] for part in parts}
if NEEDED - names or FOREIGN & names:
    sys.exit(f"missing: {NEEDED - names}; too much: {FOREIGN & names}")
bare = [part["bom-ref"] for part in parts if not part.get("licenses") or not part.get("hashes")]
if bare:
    sys.exit(f"without a licence or a checksum: {bare}")
known = {part["bom-ref"] for part in parts} | {bill["metadata"]["component"]["bom-ref"]}
loose = {need for entry in bill["dependencies"] for need in entry["dependsOn"]} - known
if loose:
    sys.exit(f"needed and not listed: {loose}")
print(f"bill of materials: {len(parts)} parts, valid")
