/* An attention-only transformer in C99, to be held against the golden vectors:

       cc -O2 -std=c99 -o attention_only attention_only.c -lm
       minicircuits check --program './attention_only {case} {out}'

   It reads the .npy files of a case, computes forward pass and loss in double, and writes a
   .npy for each tensor. Expects a little-endian machine. Letters as in minicircuits.notation:
   b batch, i destination, j source, h head, e head dimension, d residual, v out token. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *case_folder, *out_folder;

static void fail(const char *what, const char *name)
{
    fprintf(stderr, "attention_only: %s %s\n", what, name);
    exit(2);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory) fail("no memory for", "a tensor");
    return memory;
}

/* The whole file case_folder/name, ending in a 0; NULL if it is not there. */
static char *read_file(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", case_folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = allocate(size + 1);
    if (fread(bytes, 1, size, file) != (size_t)size) fail("cannot read", path);
    fclose(file);
    return bytes;
}

/* The numbers of a .npy and its sizes. Its header is text, and ends where the data begin:
   {'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), } */
static void *read_npy(const char *name, const char *dtype, long *shape)
{
    char *bytes = read_file(name), *at;
    if (!bytes) return NULL;
    size_t offset = 10 + (unsigned char)bytes[8] + 256 * (unsigned char)bytes[9];
    if (memcmp(bytes, "\x93NUMPY\1", 7) || !strstr(bytes + 10, dtype)
        || !strstr(bytes + 10, "False") || !(at = strstr(bytes + 10, "'shape': (")))
        fail("not the .npy that was expected:", name);
    at += strlen("'shape': (");
    while (*at != ')') {
        *shape++ = strtol(at, &at, 10);
        at += strspn(at, ", ");
    }
    return bytes + offset;
}

static void write_npy(const char *name, const void *numbers, int axes, const long *shape)
{
    char path[4096], sizes[256] = "", header[129];
    long count = 1;
    for (int n = 0; n < axes; n++) {
        count *= shape[n];
        sprintf(sizes + strlen(sizes), "%ld, ", shape[n]);
    }
    int used = snprintf(header, 118, "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }",
                        sizes);
    memset(header + used, ' ', 117 - used);
    header[117] = '\n';
    snprintf(path, sizeof path, "%s/%s.npy", out_folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite("\x93NUMPY\1\0\x76\0", 1, 10, file) != 10
        || fwrite(header, 1, 118, file) != 118
        || fwrite(numbers, sizeof(double), count, file) != (size_t)count || fclose(file))
        fail("cannot write", path);
}

#define SHAPE(...) (sizeof (long[]){__VA_ARGS__} / sizeof(long)), (long[]){__VA_ARGS__}
#define FOR(n, size) for (long n = 0; n < size; n++)

/* p_j = exp(x_j) / sum exp(x), in place; returns log sum exp(x). */
static double softmax(double *x, long size)
{
    double largest = x[0], sum = 0;
    FOR(j, size) largest = fmax(largest, x[j]);
    FOR(j, size) sum += exp(x[j] - largest);
    FOR(j, size) x[j] = exp(x[j] - largest) / sum;
    return largest + log(sum);
}

int main(int count, char **arguments)
{
    if (count != 3) fail("usage: attention_only", "CASE OUT");
    case_folder = arguments[1];
    out_folder = arguments[2];
    const char *manifest = read_file("manifest.json");
    if (!manifest) fail("no manifest in", case_folder);
    int shortformer = strstr(manifest, "\"positions\": \"shortformer\"") != NULL;
    int standard = strstr(manifest, "\"positions\": \"standard\"") != NULL;

    long s[4], B, T, D, V, L, H, E, P;
    int *tokens_at = read_npy("tokens.npy", "<i4", s); B = s[0], T = s[1];
    double *W_E_at = read_npy("W_E.npy", "<f8", s); D = s[0], V = s[1];
    double *W_pos_at = read_npy("W_pos.npy", "<f8", s); P = W_pos_at ? s[1] : 1;
    double *W_Q_at = read_npy("W_Q.npy", "<f8", s); L = s[0], H = s[1], E = s[2];
    double *W_K_at = read_npy("W_K.npy", "<f8", s), *W_V_at = read_npy("W_V.npy", "<f8", s);
    double *W_O_at = read_npy("W_O.npy", "<f8", s), *W_U_at = read_npy("W_U.npy", "<f8", s);
    if (!tokens_at || !W_E_at || !W_Q_at || !W_K_at || !W_V_at || !W_O_at || !W_U_at
        || (!W_pos_at && (shortformer || standard))) fail("weights are missing in", case_folder);

    /* The same memory, with axes. */
    int (*tokens)[T] = (void *)tokens_at;
    double (*W_E)[V] = (void *)W_E_at, (*W_pos)[P] = (void *)W_pos_at;
    double (*W_Q)[H][E][D] = (void *)W_Q_at, (*W_K)[H][E][D] = (void *)W_K_at;
    double (*W_V)[H][E][D] = (void *)W_V_at, (*W_O)[H][D][E] = (void *)W_O_at;
    double (*W_U)[D] = (void *)W_U_at;
    double (*x)[B][T][D] = allocate((L + 1) * sizeof *x), *y = allocate(D * sizeof *y);
    double (*q)[B][H][T][E] = allocate(L * sizeof *q), (*k)[B][H][T][E] = allocate(L * sizeof *k);
    double (*v)[B][H][T][E] = allocate(L * sizeof *v), (*z)[B][H][T][E] = allocate(L * sizeof *z);
    double (*scores)[B][H][T][T] = allocate(L * sizeof *scores);
    double (*pattern)[B][H][T][T] = allocate(L * sizeof *pattern);
    double (*logits)[T][V] = allocate(B * sizeof *logits), *row = allocate(V * sizeof *row);

    FOR(b, B) FOR(i, T) FOR(d, D)                       /* x_0 = W_E t (+ positions) */
        x[0][b][i][d] = W_E[d][tokens[b][i]] + (standard ? W_pos[d][i] : 0);

    FOR(l, L) FOR(b, B) {
        FOR(i, T) {                                     /* q = W_Q y, k = W_K y, v = W_V x */
            FOR(d, D) y[d] = x[l][b][i][d] + (shortformer ? W_pos[d][i] : 0);
            FOR(h, H) FOR(e, E) FOR(d, D) {
                q[l][b][h][i][e] += W_Q[l][h][e][d] * y[d];
                k[l][b][h][i][e] += W_K[l][h][e][d] * y[d];
                v[l][b][h][i][e] += W_V[l][h][e][d] * x[l][b][i][d];
            }
        }
        FOR(h, H) FOR(i, T) {                           /* A = softmax*(q.k / sqrt(d_head)) */
            FOR(j, T) {
                FOR(e, E) scores[l][b][h][i][j] += q[l][b][h][i][e] * k[l][b][h][j][e];
                scores[l][b][h][i][j] /= sqrt(E);
                if (j <= i) pattern[l][b][h][i][j] = scores[l][b][h][i][j];
            }
            softmax(pattern[l][b][h][i], i + 1);        /* sources after i stay 0 */
            FOR(j, T) FOR(e, E)                         /* z = A v */
                z[l][b][h][i][e] += pattern[l][b][h][i][j] * v[l][b][h][j][e];
        }
        FOR(i, T) FOR(d, D) {                           /* x + sum over heads of W_O z */
            x[l + 1][b][i][d] = x[l][b][i][d];
            FOR(h, H) FOR(e, E) x[l + 1][b][i][d] += W_O[l][h][d][e] * z[l][b][h][i][e];
        }
    }

    double loss = 0;
    FOR(b, B) FOR(i, T) {                               /* logits = W_U x */
        FOR(w, V) FOR(d, D) logits[b][i][w] += W_U[w][d] * x[L][b][i][d];
        if (i + 1 == T) continue;                       /* the last predicts nothing known */
        memcpy(row, logits[b][i], V * sizeof *row);
        loss += softmax(row, V) - logits[b][i][tokens[b][i + 1]];
    }
    loss /= B * (T - 1);

    write_npy("residual", x, SHAPE(L + 1, B, T, D));
    write_npy("q", q, SHAPE(L, B, H, T, E));
    write_npy("k", k, SHAPE(L, B, H, T, E));
    write_npy("v", v, SHAPE(L, B, H, T, E));
    write_npy("scores", scores, SHAPE(L, B, H, T, T));
    write_npy("pattern", pattern, SHAPE(L, B, H, T, T));
    write_npy("z", z, SHAPE(L, B, H, T, E));
    write_npy("logits", logits, SHAPE(B, T, V));
    if (T > 1) write_npy("loss", &loss, 0, NULL);
    return 0;
}
