"""A case system in forty lines: submits a trace request, follows it to its end, keeps the evidence.

usage: integrate.py NODE_FOLDER SUBMISSION.json EVIDENCE.zip
"""

import asyncio
import json
import sys
from pathlib import Path

from gateway.runtime.client import AgencyClient
from protocols.problems import ProblemError


async def main(node: Path, submission: Path, evidence: Path) -> None:
    said = json.loads(submission.read_text())
    async with AgencyClient.of_node(node) as agency:
        # the key makes a repetition safe: after a broken line, submit again with the same one
        accepted = await agency.submit(
            said["to"], said["body"], handling=said["handling"], key=f"case {said['body']['request_ref']}"
        )
        print(f"accepted as thread {accepted.thread}")
        async with asyncio.timeout(60):
            async for event in agency.follow():
                if event.thread == accepted.thread:
                    print(f"{event.at} {event.kind}")
                    if (await agency.thread(accepted.thread)).state in ("ANSWERED", "REFUSED"):
                        break
        thread = await agency.thread(accepted.thread)
        for message in thread.messages:
            print(f"{message.type} from {message.sender}, {message.state}, entry {message.ledger.index}")
        evidence.write_bytes(await agency.evidence(accepted.thread))


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(Path, sys.argv[1:4])))
    except ProblemError as problem:
        sys.exit(f"{problem.code}: {problem.detail}\n  fix: {problem.kind.fix}")
