// The AMX tile instructions that the kernel uses, in C++, for processors without them.
//
// TDPBF16PS as Intel's manual defines it: within one instruction the products of even and of odd k are summed apart, each with
// fused multiply-add in F32, then added to each other and to the sum. Denormals are zero on both sides, rounding is to nearest.
// The tiles are those of one thread.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace emulated {

struct config {
    uint8_t  palette;
    uint8_t  start_row;
    uint8_t  reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
};

struct state {
    bool    configured = false;
    config  shape      = {};
    uint8_t tile[8][16][64] = {};
    int64_t products   = 0;  // instructions so far
};

inline thread_local state tiles;

inline void need(bool holds, const char * what) {
    if (!holds) {
        fprintf(stderr, "emulated AMX: %s\n", what);
        abort();
    }
}

inline void loadconfig(const void * address) {
    memcpy(&tiles.shape, address, sizeof(config));
    need(tiles.shape.palette == 1, "the palette is not 1");
    for (int t = 0; t < 8; t++) {
        need(tiles.shape.rows[t] <= 16 && tiles.shape.row_bytes[t] <= 64, "a tile is larger than 16 rows of 64 bytes");
    }
    memset(tiles.tile, 0, sizeof(tiles.tile));
    tiles.configured = true;
}

inline void release() { tiles.configured = false; }

inline void zero(int t) {
    need(tiles.configured, "no configuration is loaded");
    memset(tiles.tile[t], 0, sizeof(tiles.tile[t]));
}

inline void loadd(int t, const void * base, int64_t stride) {
    zero(t);
    for (int r = 0; r < tiles.shape.rows[t]; r++) {
        memcpy(tiles.tile[t][r], (const uint8_t *) base + r * stride, tiles.shape.row_bytes[t]);
    }
}

inline void stored(int t, void * base, int64_t stride) {
    need(tiles.configured, "no configuration is loaded");
    for (int r = 0; r < tiles.shape.rows[t]; r++) {
        memcpy((uint8_t *) base + r * stride, tiles.tile[t][r], tiles.shape.row_bytes[t]);
    }
}

inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

inline float half(const uint8_t * row, int i) {  // BF16 value i of a row
    uint16_t bits;
    memcpy(&bits, row + 2 * i, 2);
    const uint32_t wide = (uint32_t) bits << 16;
    float          x;
    memcpy(&x, &wide, 4);
    return flushed(x);
}

inline void dpbf16ps(int c, int a, int b) {
    const config & s = tiles.shape;
    need(tiles.configured, "no configuration is loaded");
    tiles.products++;
    need(s.rows[c] == s.rows[a] && s.row_bytes[c] == s.row_bytes[b] && s.row_bytes[a] / 4 == s.rows[b], "the shapes do not match");
    for (int m = 0; m < s.rows[c]; m++) {
        for (int n = 0; n < s.row_bytes[c] / 4; n++) {
            float even = 0;
            float odd  = 0;
            for (int k = 0; k < s.rows[b]; k++) {
                const uint8_t * x = tiles.tile[a][m];
                const uint8_t * y = tiles.tile[b][k];
                even = flushed(std::fma(half(x, 2 * k), half(y, 2 * n), even));
                odd  = flushed(std::fma(half(x, 2 * k + 1), half(y, 2 * n + 1), odd));
            }
            float sum;
            memcpy(&sum, tiles.tile[c][m] + 4 * n, 4);
            sum = flushed(flushed(sum) + flushed(even + odd));
            memcpy(tiles.tile[c][m] + 4 * n, &sum, 4);
        }
    }
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(address)         emulated::loadconfig(address)
#define _tile_release()                   emulated::release()
#define _tile_zero(t)                     emulated::zero(t)
#define _tile_loadd(t, base, stride)      emulated::loadd(t, base, stride)
#define _tile_stored(t, base, stride)     emulated::stored(t, base, stride)
#define _tile_dpbf16ps(c, a, b)           emulated::dpbf16ps(c, a, b)
