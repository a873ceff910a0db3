"""The health of a run without labels: what is measured during it, and what the numbers mean in plain words."""

from mirada.doctor.diagnosis import Alarm, diagnose
from mirada.doctor.health import Health

__all__ = ["Alarm", "Health", "diagnose"]
