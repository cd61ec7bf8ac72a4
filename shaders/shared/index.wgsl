// Workgroups are dispatched as x by y so that more than 65535 fit; this is their running number.
fn workgroup_number(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}
