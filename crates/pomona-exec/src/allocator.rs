//! What the C library does with memory that values leave behind, and how much there was.

/// Makes the allocator keep freed memory for the next value, where it is glibc's. By default it gives every large buffer
/// back to the kernel, which clears it again page by page for the next one: in networks of many large values more than half
/// of the time went there. A process that runs networks calls this once, before it does.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest that glibc takes on 64 bits; buffers above it are still mapped one by one.
        const MAPPED_FROM: i32 = 32 << 20;
        /// Freed memory at the top of the heap that stays.
        const KEPT: i32 = 256 << 20;
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
            (libc::M_TRIM_THRESHOLD, KEPT),
            (libc::M_TOP_PAD, MAPPED_FROM),
        ] {
            // SAFETY: `mallopt` takes two integers, may be called at any time, and leaves a setting that it refuses as it is.
            unsafe { libc::mallopt(option, value) };
        }
    }
}

/// The most memory that this process has held at a time, in bytes, files that it maps among it; none where the system does not
/// say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
