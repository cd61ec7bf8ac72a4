//! Peak resident memory of this process.

/// Linux: VmHWM of /proc/self/status; None elsewhere.
pub fn host_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Linux: the peak starts again at what is resident now. Elsewhere, and where the system forbids it, it stays.
pub fn restart_host_peak() {
    // 5 resets VmHWM (proc(5)); nothing depends on it but how much the figure says.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
