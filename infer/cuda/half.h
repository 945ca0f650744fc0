/* IEEE 754 half precision, rounded to nearest even, in integer arithmetic: the same bits on host and device. */
#ifndef PULMO_INFER_CUDA_HALF_H
#define PULMO_INFER_CUDA_HALF_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define DEVICE_BOTH __host__ __device__
#else
#define DEVICE_BOTH
#endif

DEVICE_BOTH static inline uint32_t half_float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

DEVICE_BOTH static inline float half_bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

DEVICE_BOTH static inline uint16_t half_from_float(float value) {
    uint32_t bits = half_float_bits(value), sign = bits >> 16 & 0x8000U, size = bits & 0x7FFFFFFFU;
    if (size > 0x7F800000U)
        return (uint16_t)(sign | 0x7E00U); /* NaN */
    if (size >= 0x477FF000U)
        return (uint16_t)(sign | 0x7C00U); /* 65520 and more round to infinity */
    if (size < 0x38800000U) {              /* below 2^-14: the sum with 0.5 rounds to multiples of 2^-24 */
        float sum = half_bits_float(size) + 0.5F;
        return (uint16_t)(sign | (half_float_bits(sum) - 0x3F000000U));
    }
    size += 0xC8000FFFU + (size >> 13 & 1U); /* exponent bias 127 to 15, half of the last bit, ties to even */
    return (uint16_t)(sign | size >> 13);
}

DEVICE_BOTH static inline float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16, size = (uint32_t)(half & 0x7FFFU) << 13;
    if (size >= 0x0F800000U) /* infinity, NaN */
        return half_bits_float(sign | size | 0x7F800000U);
    float value = half_bits_float(size) * 0x1p112F; /* exact, for subnormal numbers too */
    return half_bits_float(sign | half_float_bits(value));
}

#endif
