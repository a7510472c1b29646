"""Runs a compiled job again and again, by Kubeflow Pipelines' own scheduler.

A schedule is one recurring run for each name. The API cannot change a recurring run, nor does it mind two of the same
name, so the name's uniqueness is kept here: each carries a mark, a hash of what it was asked for. What has the wanted
mark stays; anything else is replaced, in an order in which at no time two of them are enabled, and which the same
command completes when it is cut short: create the new one disabled, disable the old, enable the new, delete the old.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import kfp_server_api

from morph_core import MorphError

from .api import KubeflowApi
from .cron import people_cron
from .upload import runtime_config, version_of, version_reference

_MARK = re.compile(r"\[morph-tfx (?P<settings>[0-9a-f]{16}) (?P<state>enabled|disabled)\]")


@dataclass(frozen=True)
class Settings:
    """What a schedule was asked for."""

    cron: str  # six fields, seconds first
    pipeline_id: str
    version_id: str
    experiment_id: str
    max_concurrency: int = 1
    catch_up: bool = False
    service_account: str | None = None
    root: str | None = None  # address of the artifacts; None is the cluster's own
    parameters: Mapping[str, Any] = field(default_factory=dict)  # values that its runs are given

    def digest(self) -> str:
        asked = {**asdict(self), "parameters": {name: _plain(value) for name, value in self.parameters.items()}}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def as_asked_for(self, mark: str | None) -> Settings:
        """These settings without what the server has filled in by itself, where that is what `mark` is the hash of."""
        for names in (("service_account",), ("root",), ("service_account", "root")):
            asked = replace(self, **dict.fromkeys(names))
            if asked.digest() == mark:
                return asked
        return self


@dataclass(frozen=True)
class Schedule:
    """A recurring run. `settings` is what the API says of it; `mark` the hash of what it was asked for, if by us."""

    id: str
    name: str
    enabled: bool
    settings: Settings
    created_at: datetime.datetime
    mark: str | None = None
    meant_enabled: bool = True

    def to_json(self) -> dict[str, Any]:
        """For machines: the cron expression in five fields, as it was given."""
        return {
            "id": self.id,
            "name": self.name,
            "enabled": self.enabled,
            "cron": people_cron(self.settings.cron),
            "max_concurrency": self.settings.max_concurrency,
            "catch_up": self.settings.catch_up,
            "pipeline_id": self.settings.pipeline_id,
            "version_id": self.settings.version_id,
            "experiment_id": self.settings.experiment_id,
            "parameters": dict(self.settings.parameters),
            "created_at": self.created_at.isoformat(),
            "by_morph_tfx": self.mark is not None,
        }


def list_schedules(api: KubeflowApi, name: str | None = None) -> list[Schedule]:
    """The schedules of the namespace, or those of one name, by name and age.

    Raises:
        MorphError: as `KubeflowApi.call`.
    """
    listed = api.recurring_runs.recurring_run_service_list_recurring_runs
    found = [_schedule(one) for one in api.each("list the schedules", listed, "recurring_runs", name, **api.scope)]
    return sorted(found, key=lambda schedule: (schedule.name, schedule.created_at, schedule.id))


def schedules_of_ours(api: KubeflowApi, name: str) -> list[Schedule]:
    """The schedules of this name, by age; more than one where a replacement was cut short.

    Raises:
        MorphError: there is one that was not made by morph-tfx; or as `KubeflowApi.call`.
    """
    found = list_schedules(api, name)
    foreign = [schedule for schedule in found if schedule.mark is None]
    if foreign:
        raise MorphError(
            f"There is a schedule {name!r} ({foreign[0].id}) that was not made by morph-tfx, and it is left alone. "
            f"Choose another --name, or delete it first: morph-tfx schedule delete {name}"
        )
    return found


def put_schedule(api: KubeflowApi, name: str, settings: Settings, enabled: bool = True) -> tuple[Schedule, bool]:
    """Sees to it that there is exactly one schedule of this name, and that it is as asked for.

    Returns:
        The schedule, and whether anything had to be changed.

    Raises:
        MorphError: there is one of this name that was not made by morph-tfx; or as `KubeflowApi.call`.
    """
    before = schedules_of_ours(api, name)
    digest = settings.digest()

    def wanted() -> Schedule | None:
        return next((schedule for schedule in list_schedules(api, name) if schedule.mark == digest), None)

    others = any(schedule.mark != digest for schedule in before)
    body = _recurring_run(name, settings, digest, enabled=enabled, starts=enabled and not others)
    service = api.recurring_runs
    what = f"create the schedule {name!r}"
    make = service.recurring_run_service_create_recurring_run
    _, made = api.create(what, wanted, make, body, key="recurring_run_id")

    schedules = list_schedules(api, name)
    keeper = next((schedule for schedule in schedules if schedule.mark == digest), None)
    if keeper is None:
        raise MorphError(f"The schedule {name!r} disappeared while it was made. Does somebody else manage it, too?")
    surplus = [schedule for schedule in schedules if schedule.id != keeper.id]
    for schedule in surplus:
        if schedule.enabled:
            _set_enabled(api, schedule, False)
    if keeper.enabled != enabled:
        _set_enabled(api, keeper, enabled)
    for schedule in surplus:
        _delete(api, schedule)
    return replace(keeper, enabled=enabled), made or bool(surplus) or keeper.enabled != enabled


def update_schedule(api: KubeflowApi, name: str, change: Callable[[Settings], Settings]) -> tuple[Schedule, bool]:
    """Replaces the schedule of this name by one with other settings; whether it is enabled stays as it is.

    Raises:
        MorphError: there is none; it was not made by morph-tfx; or as `KubeflowApi.call`.
    """
    schedules = existing_schedules(api, name)
    current = schedules[-1]
    # More than one: an update was cut short, and what the newest was meant to become says more than its state.
    enabled = current.enabled if len(schedules) == 1 else current.meant_enabled
    return put_schedule(api, name, change(current.settings), enabled)


def enable_schedule(api: KubeflowApi, name: str, enabled: bool) -> Schedule:
    """Enables or disables a schedule. Of several (an update that was cut short), only the newest is ever enabled.

    Raises:
        MorphError: there is none of this name; or as `KubeflowApi.call`.
    """
    *older, newest = existing_schedules(api, name)
    for schedule in older:
        _set_enabled(api, schedule, False)
    _set_enabled(api, newest, enabled)
    return replace(newest, enabled=enabled)


def delete_schedule(api: KubeflowApi, name: str) -> int:
    """Deletes the schedule of this name, and returns how many recurring runs that were. Runs that it started stay.

    Raises:
        MorphError: there is none of this name; or as `KubeflowApi.call`.
    """
    schedules = existing_schedules(api, name)
    for schedule in schedules:
        _delete(api, schedule)
    return len(schedules)


def existing_schedules(api: KubeflowApi, name: str) -> list[Schedule]:
    """The schedules of this name, by age.

    Raises:
        MorphError: there is none; those that there are are named. Or as `KubeflowApi.call`.
    """
    schedules = list_schedules(api, name)
    if not schedules:
        names = sorted({schedule.name for schedule in list_schedules(api)})
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(map(repr, names)) or 'none'}."
        raise MorphError(f"There is no schedule {name!r}; {hint}")
    return schedules


def _set_enabled(api: KubeflowApi, schedule: Schedule, enabled: bool) -> None:
    service = api.recurring_runs
    if enabled:
        function, verb = service.recurring_run_service_enable_recurring_run, "enable"
    else:
        function, verb = service.recurring_run_service_disable_recurring_run, "disable"
    api.call(f"{verb} the schedule {schedule.name!r} ({schedule.id})", function, schedule.id)


def _delete(api: KubeflowApi, schedule: Schedule) -> None:
    function = api.recurring_runs.recurring_run_service_delete_recurring_run
    api.remove(f"delete the schedule {schedule.name!r} ({schedule.id})", function, schedule.id)


def _recurring_run(name: str, settings: Settings, digest: str, *, enabled: bool, starts: bool) -> Any:
    """The request; `starts` is the state it begins in, `enabled` the one that it will have in the end."""
    state = "enabled" if enabled else "disabled"
    return kfp_server_api.V2beta1RecurringRun(
        display_name=name,
        description=f"Managed by 'morph-tfx schedule'; changes made elsewhere are lost. [morph-tfx {digest} {state}]",
        experiment_id=settings.experiment_id,
        pipeline_version_reference=version_reference(settings.pipeline_id, settings.version_id),
        runtime_config=runtime_config(settings.root, settings.parameters),
        service_account=settings.service_account,
        max_concurrency=str(settings.max_concurrency),
        no_catchup=not settings.catch_up,
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=settings.cron)),
        mode="ENABLE" if starts else "DISABLE",
    )


def _schedule(recurring_run: Any) -> Schedule:
    mark = _MARK.search(recurring_run.description or "")
    trigger = recurring_run.trigger.cron_schedule if recurring_run.trigger else None
    pipeline_id, version_id = version_of(recurring_run)
    config = recurring_run.runtime_config
    settings = Settings(
        cron=(trigger.cron if trigger else None) or "periodic",
        pipeline_id=pipeline_id,
        version_id=version_id,
        experiment_id=recurring_run.experiment_id or "",
        max_concurrency=int(recurring_run.max_concurrency or 0),
        catch_up=not recurring_run.no_catchup,
        service_account=recurring_run.service_account or None,
        root=(config.pipeline_root if config else None) or None,
        parameters={name: _plain(value) for name, value in ((config.parameters if config else None) or {}).items()},
    ).as_asked_for(mark["settings"] if mark else None)
    return Schedule(
        id=recurring_run.recurring_run_id,
        name=recurring_run.display_name,
        enabled=recurring_run.status == "ENABLED",
        settings=settings,
        created_at=recurring_run.created_at,
        mark=mark["settings"] if mark else None,
        meant_enabled=mark is None or mark["state"] == "enabled",
    )


def _plain(value: Any) -> Any:
    """A value as it was sent: the API's numbers are all floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
