"""Agents as documents: taken out of a deployment, and made from one."""
