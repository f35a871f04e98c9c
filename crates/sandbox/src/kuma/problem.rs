//! Errors of requests.

use serde_json::{Value, json};

use super::message::KumaResponse;

/// A violation of a rule at a field path such as `networking.inbound[0].port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldViolation {
    pub(super) field: String,
    pub(super) reason: String,
}

/// The violations of a body, in the server's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldViolations(pub(super) Vec<FieldViolation>);

impl FieldViolations {
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), reason: reason.into() });
    }

    /// An error with these violations, if there are any.
    pub(super) fn or_invalid(self, title: &str) -> Result<(), KumaProblem> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(KumaProblem {
            violations: self.0,
            ..KumaProblem::new(400, title, "The resource breaks the rules below")
        })
    }
}

/// A rejected request.
#[derive(Clone, Debug)]
pub(super) struct KumaProblem {
    status: u16,
    title: String,
    detail: String,
    violations: Vec<FieldViolation>,
}

impl KumaProblem {
    pub(super) fn new(status: u16, title: &str, detail: impl Into<String>) -> Self {
        Self { status, title: title.to_owned(), detail: detail.into(), violations: Vec::new() }
    }

    pub(super) fn not_found(title: &str) -> Self {
        Self::new(404, title, "There is none of this name")
    }

    pub(super) fn no_mesh() -> Self {
        Self::not_found("No such mesh")
    }

    /// An error for a body that cannot be decoded, without fields.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "Malformed request", detail)
    }

    pub(super) fn denied(who: &str, what: &str) -> Self {
        Self::new(403, "Access denied", format!("{who} may not {what}"))
    }

    pub(super) fn response(&self) -> KumaResponse {
        let mut body = json!({
            "type": "/std-errors",
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            "details": self.detail,
        });
        if !self.violations.is_empty() {
            let list = |text: &str| -> Value {
                self.violations.iter().map(|v| json!({"field": v.field, text: v.reason})).collect()
            };
            body["invalid_parameters"] = list("reason");
            body["causes"] = list("message");
        }
        KumaResponse::json(self.status, &body)
    }
}
