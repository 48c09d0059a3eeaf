// The kernel of the patch over odd shapes, with emulated tiles, against sums in double precision.
// Each line is one finding; the last one counts the shapes. The exit status is 1 if anything was wrong.

#include "tiles.h"

#include "bf16-kernel.h"

#include <cmath>
#include <random>
#include <vector>

namespace kernel = ggml::cpu::amx::bf16;

static int wrong = 0;

static void expect(bool holds, const char * what, int64_t M, int64_t N, int64_t K, int threads) {
    if (!holds) {
        printf("%s: M %ld N %ld K %ld threads %d\n", what, (long) M, (long) N, (long) K, threads);
        wrong++;
    }
}

static uint16_t rounded(float x) {  // to BF16, to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

static float widened(uint16_t x) {
    const uint32_t bits = (uint32_t) x << 16;
    float          y;
    memcpy(&y, &bits, 4);
    return y;
}

struct problem {
    int64_t               M, N, K;
    std::vector<float>    activations;
    std::vector<uint16_t> weights;

    problem(int64_t M, int64_t N, int64_t K, unsigned seed) : M(M), N(N), K(K), activations(M * K), weights(N * K) {
        std::mt19937                    random(seed);
        std::normal_distribution<float> normal;
        for (auto & x : activations) { x = normal(random); }
        for (auto & x : weights) { x = rounded(0.05f * normal(random)); }
    }
};

constexpr float GUARD = -12345.0f;

// What `threads` threads compute, one after the other; the values behind the result must stay.
static std::vector<float> product(const problem & p, int threads, bool & intact) {
    const int64_t         KB = p.K / kernel::DEPTH;
    std::vector<uint16_t> weights(kernel::tiles(p.N) * KB * kernel::TILE_SIZE, 0x7fc0);  // NaN where nothing is packed
    std::vector<uint16_t> activations(kernel::tiles(p.M) * KB * kernel::TILE_SIZE, 0x7fc0);
    for (int64_t nb = 0; nb < kernel::tiles(p.N); nb++) {
        kernel::pack_weights(weights.data(), p.weights.data(), p.N, p.K, nb);
    }
    const auto row   = [&](int64_t m) { return p.activations.data() + m * p.K; };
    const auto share = [&](int64_t n, int i, int64_t & begin, int64_t & end) {  // as ggml's parallel_for_ggml
        const int64_t each = (n + threads - 1) / threads;
        begin = i * each;
        end   = std::min(begin + each, n);
    };
    int64_t begin, end;
    for (int i = 0; i < threads; i++) {
        share(kernel::tiles(p.M) * KB, i, begin, end);
        kernel::pack_activations(activations.data(), row, p.M, p.K, begin, end);
    }
    const int64_t      behind = 64;
    std::vector<float> result(p.M * p.N + behind, GUARD);
    for (int i = 0; i < threads; i++) {
        share(kernel::parts(p.M, p.N), i, begin, end);
        kernel::multiply_parts(activations.data(), weights.data(), result.data(), p.M, p.N, p.K, begin, end);
    }
    intact = true;
    for (int64_t i = 0; i < behind; i++) {
        intact = intact && result[p.M * p.N + i] == GUARD;
    }
    result.resize(p.M * p.N);
    return result;
}

static void check(int64_t M, int64_t N, int64_t K, int threads) {
    const problem p(M, N, K, (unsigned) (M * 7919 + N * 31 + K));
    bool          intact;
    const int64_t before = emulated::tiles.products;
    const auto    result = product(p, threads, intact);
    expect(intact, "wrote behind the result", M, N, K, threads);
    expect(emulated::tiles.products - before == kernel::tiles(M) * kernel::tiles(N) * (K / kernel::DEPTH),
           "a tile was computed twice or not at all", M, N, K, threads);
    bool close = true;
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            double magnitude = 0;
            for (int64_t k = 0; k < K; k++) {
                const double term = (double) widened(rounded(p.activations[m * K + k])) * widened(p.weights[n * K + k]);
                sum += term;
                magnitude += std::fabs(term);
            }
            // K + 2 roundings of F32 at most, each half a unit of 2^-23 of what was summed so far
            close = close && std::fabs(result[m * N + n] - sum) <= magnitude * (K + 2) * 0x1p-24;
        }
    }
    expect(close, "not the product", M, N, K, threads);
}

// A row is the same, bit for bit, alone and among any others, for any number of threads.
static void check_rows(int64_t M, int64_t N, int64_t K) {
    const problem p(M, N, K, 1);
    bool          intact;
    const auto    result = product(p, 1, intact);
    for (const int threads : { 2, 3, 7, 64 }) {
        expect(product(p, threads, intact) == result, "another result with more threads", M, N, K, threads);
    }
    for (const int64_t m : { (int64_t) 0, M / 2, M - 1 }) {
        problem alone(1, N, K, 1);
        alone.weights = p.weights;
        alone.activations.assign(p.activations.begin() + m * K, p.activations.begin() + (m + 1) * K);
        const auto one = product(alone, 1, intact);
        expect(std::equal(one.begin(), one.end(), result.begin() + m * N), "another result alone", M, N, K, 1);
    }
}

static void check_rounding() {
    const uint32_t bits[] = { 0x3f800000, 0x3f808000, 0x3f818000, 0x3f80ffff, 0x7f800000, 0xff800000, 0x7f7fffff, 0x80000000,
                              0x3f807fff, 0x3f808001, 0xbf808000, 0xbf818000, 0x00800000, 0x7fc00000, 0x7f800001, 0x00000000 };
    const uint16_t want[] = { 0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0xff80, 0x7f80, 0x8000,
                              0x3f80, 0x3f81, 0xbf80, 0xbf82, 0x0080, 0x7fc0, 0x7fc0, 0x0000 };
    float    values[32] = {};
    uint16_t got[32];
    memcpy(values, bits, sizeof(bits));
    kernel::round_row(got, values, 32);
    for (int i = 0; i < 16; i++) {
        if (got[i] != want[i]) {
            printf("rounding: %08x became %04x, not %04x\n", bits[i], got[i], want[i]);
            wrong++;
        }
    }
}

int main() {
    int shapes = 0;
    check_rounding();
    for (int64_t M = 1; M <= 70; M++) {
        for (const int64_t N : { 1, 15, 16, 17, 33, 48, 95 }) {
            check(M, N, 32 * (1 + (M + N) % 4), 1 + (int) (M + N) % 5);
            shapes++;
        }
    }
    const int64_t long_rows[][3] = { { 1, 65, 2080 }, { 16, 64, 1056 }, { 17, 33, 1056 }, { 45, 50, 2080 }, { 64, 32, 1024 },
                                     { 520, 17, 32 }, { 545, 40, 1056 }, { 1060, 33, 64 } };
    for (const auto & s : long_rows) {  // more than one pass over K, and over the rows
        check(s[0], s[1], s[2], 3);
        shapes++;
    }
    check_rows(1, 130, 96);
    check_rows(70, 50, 128);
    check_rows(530, 50, 1056);
    printf("%d shapes, %d wrong\n", shapes + 3, wrong);
    return wrong ? 1 : 0;
}
