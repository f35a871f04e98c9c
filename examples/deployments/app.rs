//! The app of a task: an HTTP server that serves on for a time after SIGTERM, then finishes its requests and exits.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until `serve` has passed since SIGTERM.
///
/// # Errors
/// Describes the failure.
pub(crate) fn run(port: u16, serve: Duration) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("starting the app: {error}"))?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let listener = TcpListener::bind(("0.0.0.0", port)).await;
        let listener = listener.map_err(|error| format!("listening on port {port}: {error}"))?;
        let router = axum::Router::new().fallback(|| async { "ok\n" });
        let end = async move {
            terminated.recv().await;
            tokio::time::sleep(serve).await;
        };
        axum::serve(listener, router).with_graceful_shutdown(end).await.map_err(|error| error.to_string())
    })
}
