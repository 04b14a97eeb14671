"""A small case system: submits a trace request, follows it for a minute, keeps the evidence of what there is.

usage: integrate.py NODE_FOLDER SUBMISSION.json EVIDENCE.zip

Away from the node's folder, with a client's key alone: AgencyClient(url, audience=..., client=..., actor=..., key=...).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from gateway.runtime.client import AgencyClient
from protocols.problems import ProblemError


async def trace(node: Path, said: dict[str, Any]) -> bytes:
    async with AgencyClient.of_node(node) as agency:
        # the key makes a repetition safe: after a broken line, submit again with the same one
        key = f"case {said['body']['request_ref']}"
        accepted = await agency.submit(said["to"], said["body"], handling=said["handling"], key=key)
        print(f"accepted as thread {accepted.thread}")
        try:
            async with asyncio.timeout(60):
                async for event in agency.follow():
                    if event.thread == accepted.thread:
                        print(f"{event.at} {event.kind}")
                        if (await agency.thread(accepted.thread)).state in ("ANSWERED", "REFUSED"):
                            break
        except TimeoutError:
            print("no answer yet: a person may have to look at it; follow the thread")
        thread = await agency.thread(accepted.thread)
        print(f"the thread is {thread.state}")
        for message in thread.messages:
            print(f"{message.type} from {message.sender}, {message.state}, entry {message.ledger.index}")
        return await agency.evidence(accepted.thread)


def main(node: str, submission: str, evidence: str) -> None:
    try:
        data = asyncio.run(trace(Path(node), json.loads(Path(submission).read_text())))
    except ProblemError as problem:
        sys.exit(f"{problem.code}: {problem.detail}\n  fix: {problem.kind.fix}")
    Path(evidence).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
