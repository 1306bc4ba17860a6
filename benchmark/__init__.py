"""How long the plugins take, beside the reference: what scripts/bench measures, prints and draws. No test."""
