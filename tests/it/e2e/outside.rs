//! Nothing outside the process stops it: clients of its port, the reader of its log, the files that it is given.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::harness::{Harness, OperatorProcess, control_plane, eventually};

/// A free loopback address.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Both ends of a connection that takes nothing before the returned number of bytes is read.
fn full_pipe() -> (UnixStream, UnixStream, usize) {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut filler = 0;
    // Ever smaller, so that no line fits in.
    for size in [65_536, 1_024, 1] {
        loop {
            match writer.write(&vec![b'.'; size]) {
                Ok(written) => filler += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    writer.set_nonblocking(false).unwrap();
    (reader, writer, filler)
}

async fn wait_until_healthy(harness: &Harness, address: &str) {
    eventually("/healthz answers", || async {
        let response = harness.http.get(format!("http://{address}/healthz")).send().await.ok()?;
        response.status().is_success().then_some(())
    })
    .await;
}

#[tokio::test]
async fn healthcheck_passes_while_idle_clients_fill_the_port() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let operator = harness.operator(&["--metrics-address", "127.0.0.1:0"]);
    let line = operator.line(&[("level", "INFO"), ("address", "")]).await;
    let address = line["address"].as_str().unwrap();
    operator.wait_for_sweep(true).await;
    let mut idle = Vec::new();
    for n in 0..64 {
        let mut stream = TcpStream::connect(address).unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").unwrap();
        }
        idle.push(stream);
    }
    let arguments = ["healthcheck", "--metrics-address", address, "--ready"];
    let mut check =
        OperatorProcess::start(harness.directory.path(), "healthcheck", &harness.environment, &arguments);
    assert_eq!(check.code().await, Some(0), "{}{}", check.stdout(), check.stderr());
}

#[tokio::test]
async fn operator_works_and_stops_while_its_log_is_not_read() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.deploy("app", 2).await;
    let (_reader, stderr, _) = full_pipe();
    let address = free();
    let more = ["--metrics-address", &address, "--log", "trace"];
    let mut operator = harness.operator_logging_to(OwnedFd::from(stderr).into(), &more);
    wait_until_healthy(&harness, &address).await;
    harness.wait_for_dataplanes("both tasks are registered", |all| all.len() == 2).await;
    let metrics = harness.http.get(format!("http://{address}/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let waiting = metrics.lines().find(|line| line.starts_with("ecs_mesh_waiting_audit_lines ")).unwrap();
    assert_eq!(waiting, "ecs_mesh_waiting_audit_lines 2");
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

#[tokio::test]
async fn audit_lines_arrive_when_the_log_is_read_again() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.deploy("app", 3).await;
    let (mut reader, stderr, filler) = full_pipe();
    let mut operator = harness.operator_logging_to(OwnedFd::from(stderr).into(), &[]);
    harness.wait_for_dataplanes("all tasks are registered", |all| all.len() == 3).await;
    reader.read_exact(&mut vec![0; filler]).unwrap();
    let log = std::thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let log: Vec<String> = log.join().unwrap();
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let created = lines.iter().filter(|line| line["target"] == "audit" && line["change"] == "create");
    assert_eq!(created.count(), 3, "{log:#?}");
    assert_eq!(lines.last().unwrap()["message"], "stopped", "{log:#?}");
}

#[tokio::test]
async fn odd_files_stop_neither_operator_nor_validate() {
    let mut harness = Harness::start().await;
    harness.environment.insert("ECS_MESH_ALLOW_DIR".to_owned(), "/".to_owned());
    let fifo = harness.path("fifo");
    make_fifo(&fifo);
    make_fifo(&harness.path("manifests").join("pipe.yaml"));
    let file = fifo.display();
    let odd = [
        control_plane("odd-ca", "https://127.0.0.1:9", &format!(", caFile: \"{file}\"")),
        control_plane("odd-token", harness.variable("KUMA_API_URL"), &format!(", tokenFile: \"{file}\"")),
        control_plane("endless", harness.variable("KUMA_API_URL"), ", tokenFile: /dev/zero"),
    ];
    harness.manifest("all.yaml", &(harness.base_manifests() + &odd.concat()));
    harness.deploy("app", 1).await;
    let mut operator = harness.operator(&[]);
    harness.wait_for_dataplanes("the task is registered", |all| all.len() == 1).await;
    operator.line(&[("level", "ERROR"), ("control_plane", "odd-ca"), ("error", "a FIFO")]).await;
    operator.line(&[("level", "ERROR"), ("*", "pipe.yaml"), ("error", "a FIFO")]).await;
    for (control_plane, found) in [("odd-token", "a FIFO"), ("endless", "a device")] {
        operator.line(&[("level", "WARN"), ("control_plane", control_plane), ("error", found)]).await;
    }
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let arguments = ["validate", fifo.to_str().unwrap()];
    let mut validate =
        OperatorProcess::start(harness.directory.path(), "validate", &harness.environment, &arguments);
    assert_eq!(validate.code().await, Some(1));
    assert!(validate.stdout().contains("not a regular file but a FIFO"), "{}", validate.stdout());
}
