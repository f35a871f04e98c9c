//! Whether clients are routed to a stored registration.

use serde_json::Value;

/// Whether clients are routed to all inbounds and listeners of a stored registration; `None` where it has none.
pub(super) fn stored_readiness(stored: &Value) -> Option<bool> {
    let all = |path| stored.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let mut parts = all("/networking/inbound").chain(all("/networking/listeners")).peekable();
    parts.peek()?;
    Some(parts.all(is_ready))
}

/// Whether clients are routed to the inbound or listener: the server omits `state: Ready` and `ready: false`.
pub(super) fn is_ready(inbound: &Value) -> bool {
    let state = inbound.get("state").and_then(Value::as_str).is_none_or(|state| state == "Ready");
    let health = inbound.get("health").is_none_or(|health| health["ready"] == true);
    state && health
}
