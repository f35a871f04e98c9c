//! The frame of all answers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of all resources.
pub const API_VERSION: &str = "ecs-mesh.dev/v1";

/// A type of resource.
pub trait ResourceView {
    /// The kind of an object.
    const KIND: &'static str;
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectView<T> {
    /// `ecs-mesh.dev/v1`.
    pub api_version: String,
    /// The kind of the object.
    pub kind: String,
    /// Its fields.
    #[serde(flatten)]
    pub object: T,
}

impl<T: ResourceView> From<T> for ObjectView<T> {
    fn from(object: T) -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: T::KIND.to_owned(), object }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListView<T> {
    /// `ecs-mesh.dev/v1`.
    pub api_version: String,
    /// The kind of the list: that of an item with `List` behind it.
    pub kind: String,
    /// The items of this page, in the order of their keys.
    pub items: Vec<T>,
    /// The number of items on all pages.
    pub total: usize,
    /// The value of `continue` that gets the next page; absent on the last one.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T: ResourceView> ListView<T> {
    /// A page.
    pub fn new(items: Vec<T>, total: usize, next: Option<String>) -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: format!("{}List", T::KIND), items, total, next }
    }
}

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCodeView {
    /// A parameter is unknown, malformed or out of bounds.
    InvalidParameter,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// The request's `Host` is not allowed.
    Forbidden,
    /// The path or the object does not exist.
    NotFound,
    /// The method is neither GET nor HEAD.
    MethodNotAllowed,
    /// The request's target or head is too long.
    TooLarge,
    /// A limit of the reader's rate, or of streams.
    TooManyRequests,
    /// The operator is starting, or the control plane cannot be asked now.
    NotReady,
}

impl ErrorCodeView {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 414,
            Self::TooManyRequests => 429,
            Self::NotReady => 503,
        }
    }

    /// The code as a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidParameter => "invalid_parameter",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::TooManyRequests => "too_many_requests",
            Self::NotReady => "not_ready",
        }
    }
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorView {
    /// `ecs-mesh.dev/v1`.
    pub api_version: String,
    /// `Error`.
    pub kind: String,
    /// The kind of the error.
    pub code: ErrorCodeView,
    /// The error for a person, with the next step.
    pub message: String,
    /// The query parameter that the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl ErrorView {
    /// An error that is about no parameter.
    pub fn new(code: ErrorCodeView, message: impl Into<String>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "Error".to_owned(),
            code,
            message: message.into(),
            parameter: None,
        }
    }

    /// An error about a query parameter.
    pub fn parameter(parameter: &str, message: impl Into<String>) -> Self {
        let error = Self::new(ErrorCodeView::InvalidParameter, message);
        Self { parameter: Some(parameter.to_owned()), ..error }
    }
}

impl fmt::Display for ErrorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorView {}
