"""Runs on a host: for each line with questions on stdin, a line with the answers, from a new look at the host."""

import json
import sys
from pathlib import Path

from cni_node.inspect.reading import Places
from cni_node.why.command import ask, to_document
from cni_node.why.names import find_end, parse_service
from cni_node.why.reading import Node
from cni_node.why.values import Question

for line in sys.stdin:
    node = Node(Places(Path("/var/lib/cni/results"), Path("/var/lib/cni/networks")))
    answers = []
    for source, destination, service in json.loads(line):
        question = Question(source, destination, *parse_service(service))
        ends = find_end(source, node.world), find_end(destination, node.world)
        found = ask(node, ends, question)
        answers.append([found.status, to_document(found, ends, question)])
    print(json.dumps(answers), flush=True)
