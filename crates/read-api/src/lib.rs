//! The resources of the operator's read API: types, queries, paging and their JSON Schema.
//!
//! Server and clients share these types. Field names are camelCase, times are RFC 3339, and what is not known is left out.
//!
//! ```
//! use ecs_mesh_read_api::{Query, ServiceFilter, ErrorCodeView};
//!
//! let query = Query::<ServiceFilter>::parse("state=down&limit=20")?;
//! assert_eq!(query.paging.limit, 20);
//! assert_eq!(query.to_query_string(), "limit=20&state=down");
//!
//! let error = Query::<ServiceFilter>::parse("colour=red").unwrap_err();
//! assert_eq!((error.code, error.parameter.as_deref()), (ErrorCodeView::InvalidParameter, Some("colour")));
//! # Ok::<(), ecs_mesh_read_api::ErrorView>(())
//! ```

#![forbid(unsafe_code)]

mod envelope;
mod filters;
mod page;
mod query;
mod schema;
mod stream;
mod time_view;
mod url_text;
mod views;

pub use envelope::{API_VERSION, ErrorCodeView, ErrorView, ListView, ObjectView, ResourceView};
pub use filters::{
    BindingFilter, ChangeFilter, IdentityFilter, OutboundFilter, ServiceFilter, SinceView, TaskFilter,
    TopologyFilter, WarningFilter,
};
pub use page::{PageItem, page};
pub use query::{DEFAULT_LIMIT, Filter, FilterValue, MAX_LIMIT, Paging, Query};
pub use schema::schema;
pub use stream::{ChangedView, ResolvedView, StreamEventView};
pub use time_view::TimeView;
pub use url_text::{decode, encode};
pub use views::*;
