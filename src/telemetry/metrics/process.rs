//! Metrics of the process, under the names that all Prometheus clients use. They are read from `/proc` and exist on Linux
//! only.

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::collect::MetricWriter;

/// `USER_HZ`, which is part of the interface of Linux: 100 on every supported platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc`.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut to = MetricWriter(encoder);
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let times = stat.as_deref().and_then(times);
        if let Some(times) = times {
            let help = "User and system CPU time";
            to.counter("process_cpu_seconds", help, times.cpu)?;
        }
        if let (Some(times), Some(boot)) = (times, boot_time()) {
            to.gauge(
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970",
                boot + times.start,
            )?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (field, name, help) in [
            ("VmRSS:", "process_resident_memory_bytes", "Resident memory"),
            ("VmSize:", "process_virtual_memory_bytes", "Virtual memory"),
        ] {
            if let Some(bytes) = bytes(&status, field) {
                to.gauge(name, help, bytes)?;
            }
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            // The descriptor that lists them is one of them.
            let open = fds.count().saturating_sub(1);
            to.gauge("process_open_fds", "Open file descriptors", i64::try_from(open).unwrap_or(i64::MAX))?;
        }
        if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(max_fds) {
            to.gauge("process_max_fds", "Limit of open file descriptors", most)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct CpuTimes {
    cpu: f64,
    /// Seconds since the start of the system.
    start: f64,
}

fn times(stat: &str) -> Option<CpuTimes> {
    // The second field is the program's name in parentheses. The name may contain spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of these is field 3 of proc(5): utime is 14, stime 15, starttime 22.
    let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some(CpuTimes { cpu: seconds(14)? + seconds(15)?, start: seconds(22)? })
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_parser_handles_any_program_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 17 18 4200 20";
        let read = times(&format!("42 (a) b) {tail}"));
        assert_eq!(read, Some(CpuTimes { cpu: 4.0, start: 42.0 }));
    }

    #[test]
    fn kilobytes_are_converted_to_bytes() {
        assert_eq!(bytes("VmSize:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(bytes("VmRSS:\t12\n", "VmRSS:"), None);
        assert_eq!(max_fds("Max open files            1024                 4096   files\n"), Some(1024));
    }
}
