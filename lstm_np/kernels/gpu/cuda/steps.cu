// One time step after, or before, a matrix product: all gates of all samples in one pass.  One thread each unit
// of each sample.

// a_t += b; gates, c_t and h_t from a_t and c_{t-1}.  `gates` holds W x_t + U h_{t-1} on entry.
extern "C" __global__ void lstm_step_forward(int t, int B, int H, const real* bias, real* gates, real* c, real* h) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= (long long)B * H) return;
    const long long b = k / H, unit = k % H, state = (long long)B * H;
    real* a = gates + ((long long)t * B + b) * 4 * H + unit;
    const real* v = bias + unit;
    const Gates s = activate(a[0] + v[0], a[H] + v[H], a[2 * H] + v[2 * H], a[3 * H] + v[3 * H]);
    const real c_t = s.f * c[t * state + k] + s.i * s.g;  // (4)
    c[(t + 1) * state + k] = c_t;
    h[(t + 1) * state + k] = s.o * tanh_of(c_t);  // (5)
    a[0] = s.i;
    a[H] = s.f;
    a[2 * H] = s.o;
    a[3 * H] = s.g;
}

// da_t from dh (the part that came through U from step t+1, or the final state's), dy_t when has_dy, and dc, which is
// replaced by that of step t-1.
extern "C" __global__ void lstm_step_backward(int t, int B, int H, int has_dy, const real* gates, const real* c,
                                              const real* dy, const real* dh, real* dc, real* da) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= (long long)B * H) return;
    const long long b = k / H, unit = k % H, state = (long long)B * H;
    const long long row = ((long long)t * B + b) * 4 * H + unit;
    const real* s = gates + row;
    const real dh_t = dh[k] + (has_dy ? dy[t * state + k] : real(0));
    real dc_t = dc[k];
    const Gates d = cell_backward({s[0], s[H], s[2 * H], s[3 * H]}, tanh_of(c[(t + 1) * state + k]),
                                  c[t * state + k], dh_t, dc_t);
    dc[k] = dc_t;
    real* out = da + row;
    out[0] = d.i;
    out[H] = d.f;
    out[2 * H] = d.o;
    out[3 * H] = d.g;
}
