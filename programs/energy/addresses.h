/* Programs and sysvars at addresses that are the same on every cluster; eight bytes a word, little-endian. */
#ifndef ADDRESSES_H
#define ADDRESSES_H

#include "runtime.h"

/* 11111111111111111111111111111111 */
static const struct key SYSTEM_PROGRAM = {{0, 0, 0, 0}};
/* TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb */
static const struct key TOKEN_2022_PROGRAM = {
    {0xde8f75eee1f6dd06ULL, 0xdacd6ce4bc5d4218ULL, 0x270db9834dfc1ab6ULL, 0xfc8ba1d828f9bdfeULL}};
/* ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL */
static const struct key ASSOCIATED_TOKEN_PROGRAM = {
    {0xf189244e8f25978cULL, 0x830d8e1429103dbbULL, 0x8410ffda99135a0bULL, 0x59f8e9dbd87b8e04ULL}};
/* Ed25519SigVerify111111111111111111111111111 */
static const struct key ED25519_PROGRAM = {
    {0xbefb937cd6467d03ULL, 0xff408d838f42f912ULL, 0x648af42749747005ULL, 0x000000804470cafcULL}};
/* BPFLoaderUpgradeab1e11111111111111111111111 */
static const struct key UPGRADEABLE_LOADER = {
    {0xb0a1884e91f6a802ULL, 0x2bae63f73e1510e2ULL, 0xd224c1163db9c200ULL, 0x00008004107a53c0ULL}};
/* Sysvar1nstructions1111111111111111111111111 */
static const struct key INSTRUCTIONS_SYSVAR = {
    {0x66d17b1817d5a706ULL, 0xc0c2fd5504d4da35ULL, 0xa57556218fc624c1ULL, 0x000000085fcbbadbULL}};

#endif
