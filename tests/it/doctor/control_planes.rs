//! Unreachable and unsuitable control planes.

use ecs_mesh_sandbox::kuma::{KumaConfig, KumaMode};
use tokio::net::TcpListener;

use super::{DoctorSetup, TOKEN, assert_found, kuma, silent, website};

#[tokio::test]
async fn unreachable_kuma_does_not_hide_aws_checks() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    let refused = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    for (address, parts) in [
        (refused, "spec.kuma.address"),
        (silent().await, "5s"),
        (website().await, "HTML"),
        (setup.endpoints.aws_url.clone(), "spec.kuma.address"),
    ] {
        // `doctor` does not use the operator's long timeout.
        setup.manifests(&setup.endpoints.cluster, &address, ", timeout: 30s");
        let run = setup.report().await;
        let parts = [parts, address.as_str()];
        assert_found(&run, &healthy, "control-plane.reached", "error", &parts, &["control-plane."]);
        assert_eq!(run.code, Some(1), "{}", run.out);
    }
}

#[tokio::test]
async fn unsuitable_control_plane_is_reported() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    let guarded = KumaConfig {
        localhost_is_admin: false,
        admin_token: Some("right".to_owned()),
        ..KumaConfig::default()
    };
    let token = setup.directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let with_token = format!(", tokenFile: '{}'", token.display());
    let cases = [
        (
            KumaConfig { mode: KumaMode::Global, ..KumaConfig::default() },
            "",
            "control-plane.mode",
            "error",
            "global",
        ),
        (
            KumaConfig { read_only: true, ..KumaConfig::default() },
            "",
            "control-plane.mode",
            "error",
            "read-only",
        ),
        (guarded.clone(), with_token.as_str(), "control-plane.token", "error", "401"),
    ];
    for (config, more, id, status, part) in cases {
        let address = kuma(config).await;
        setup.manifests(&setup.endpoints.cluster, &address, more);
        let run = setup.report().await;
        assert_found(&run, &healthy, id, status, &[part, &address], &[]);
        assert_ne!(run.code, Some(0), "{}", run.out);
    }
    // The default configuration of Kuma works.
    let address = kuma(guarded).await;
    setup.manifests(&setup.endpoints.cluster, &address, "");
    let run = setup.report().await;
    assert_found(&run, &healthy, "control-plane.token", "info", &["anonymous", &address], &[]);
    assert_eq!(run.code, Some(0), "{}", run.out);
    let path = setup.directory.path().join("all.yaml");
    setup.manifests(&setup.endpoints.cluster, &setup.kuma_url(), "");
    let text = std::fs::read_to_string(&path).unwrap().replace("mesh: default", "mesh: nowhere");
    std::fs::write(&path, text).unwrap();
    let run = setup.report().await;
    assert_found(&run, &healthy, "control-plane.mesh", "error", &["nowhere", "MeshBinding.spec.mesh"], &[]);
}
