"""Makes the resources that the stack's configuration lists, so that one program serves every test."""

from __future__ import annotations

import json
from pathlib import Path

import pulumi
from things import Foreign, Group, Thing

from labs.errors import UsageError

config = pulumi.Config()
made: dict[str, pulumi.Resource] = {}


def options(node):
    given = dict(node.get("options", {}))
    if "in" in node:
        given["parent"] = made[node["in"]]
    if "after" in node:
        given["depends_on"] = [made[name] for name in node["after"]]
    if "aliases" in given:
        given["aliases"] = [pulumi.Alias(name=name) for name in given["aliases"]]
    return pulumi.ResourceOptions(**given)


for node in json.loads(config.require("graph")):
    props = {"world": config.require("world"), "name": node["name"], **node.get("props", {})}
    props |= {key: made[of].address for key, of in node.get("uses", {}).items()}
    props |= {key: pulumi.Output.secret(value) for key, value in node.get("secrets", {}).items()}
    kind = node.get("type", "thing")
    if kind == "group":
        made[node["name"]] = Group(node["name"], options(node))
    elif kind == "thing":
        made[node["name"]] = Thing(node["name"], props, options(node))
    else:
        made[node["name"]] = Foreign(kind, node["name"], props, options(node))

for name, resource in made.items():
    if isinstance(resource, Group):
        resource.register_outputs({"members": [node["name"] for node in json.loads(config.require("graph"))]})
    else:
        pulumi.export(name, resource.address)
        pulumi.export(f"{name} length", resource.length)

pulumi.export("folder", str(Path.cwd()))
pulumi.export("password", pulumi.Output.secret({"deep": ["hunter2", 7, 0.5]}))
pulumi.log.info("the program speaks")
match config.get("trouble"):
    case "invoke":
        pulumi.runtime.invoke("aws:index:getRegion", {})
    case "get":
        Foreign("aws:index:Bucket", "found", {}, pulumi.ResourceOptions(id="1"))
    case "transform":
        pulumi.runtime.register_resource_transform(lambda args: None)
    case "lab":
        raise UsageError("name the lab with --name")
    case "bug":
        raise ZeroDivisionError("one by none")
