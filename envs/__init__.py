"""Robot families, one file per robot. `FAMILIES` maps the name a user types to `module:Class`."""

FAMILIES: dict[str, str] = {
    "half-cheetah-vel": "metarl.envs.half_cheetah:HalfCheetahVel",
    "half-cheetah-dir": "metarl.envs.half_cheetah:HalfCheetahDir",
    "half-cheetah-body": "metarl.envs.half_cheetah:HalfCheetahBody",
}
