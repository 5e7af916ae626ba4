/* TLS 1.3 clients for the benchmarks.
 *
 * handshakes PORT load SECONDS CLIENTS full|resume
 *     That many processes, each connecting, asking for /small once, reading to the end and leaving, over and over;
 *     prints "connections resumed failed".
 * handshakes PORT idle COUNT
 *     Opens COUNT connections that ask once and stay; prints "open COUNT", and ends when its standard input does.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct counts { long done, resumed, failed; };

static SSL_SESSION *kept;

static int keep(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = session;
    return 1;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static SSL_CTX *make_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set1_groups_list(context, "X25519");
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep);
    return context;
}

/* Connect from 127.0.0.HOST and shake hands; NULL when that fails. */
static SSL *connect_tls(SSL_CTX *context, int port, int host, int resume)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct timeval limit = {5, 0};
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + host);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (bind(fd, (void *)&from, sizeof from) || connect(fd, (void *)&to, sizeof to)) {
        close(fd);
        return NULL;
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (resume && kept)
        SSL_set_session(ssl, kept);
    if (SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    close(fd);
    return NULL;
}

static void leave(SSL *ssl)
{
    /* A reset, so that no port stays taken for a minute. */
    struct linger none = {1, 0};
    int fd = SSL_get_fd(ssl);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    /* OpenSSL resumes no session whose connection broke off; say that it did not, and send nothing. */
    SSL_set_quiet_shutdown(ssl, 1);
    SSL_shutdown(ssl);
    SSL_free(ssl);
    close(fd);
}

static int ask(SSL *ssl, const char *more, int to_the_end)
{
    char request[256], answer[4096];
    int size = snprintf(request, sizeof request, "GET /small HTTP/1.1\r\nHost: localhost\r\n%s\r\n", more), got, good;
    if (SSL_write(ssl, request, size) != size)
        return 0;
    got = SSL_read(ssl, answer, sizeof answer);
    good = got > 12 && !memcmp(answer + 8, " 200", 4);
    while (to_the_end && got > 0)
        got = SSL_read(ssl, answer, sizeof answer);
    return good;
}

static void one_client(int port, double until, int resume, volatile struct counts *counts)
{
    SSL_CTX *context = make_context();
    while (seconds() < until) {
        SSL *ssl = connect_tls(context, port, 0, resume);
        if (!ssl || !ask(ssl, "Connection: close\r\n", 1)) {
            counts->failed++;
        } else {
            counts->done++;
            counts->resumed += SSL_session_reused(ssl);
        }
        if (ssl)
            leave(ssl);
    }
}

static int load(int port, double length, int clients, int resume)
{
    volatile struct counts *all = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct counts sum = {0, 0, 0};
    double until = seconds() + length;
    for (int client = 0; client < clients; client++)
        if (!fork()) {
            one_client(port, until, resume, &all[client]);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    for (int client = 0; client < clients; client++) {
        sum.done += all[client].done;
        sum.resumed += all[client].resumed;
        sum.failed += all[client].failed;
    }
    printf("%ld %ld %ld\n", sum.done, sum.resumed, sum.failed);
    return 0;
}

static int idle(int port, long count)
{
    struct rlimit files = {count + 64, count + 64};
    SSL_CTX *context = make_context();
    char octet;
    long open = 0;
    setrlimit(RLIMIT_NOFILE, &files);
    for (long number = 0; number < count; number++) {
        SSL *ssl = connect_tls(context, port, number / 2000, 0);
        open += ssl && ask(ssl, "", 0);
    }
    printf("open %ld\n", open);
    fflush(stdout);
    while (read(0, &octet, 1) > 0)
        ;
    return 0;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    if (count == 6 && !strcmp(words[2], "load"))
        return load(atoi(words[1]), atof(words[3]), atoi(words[4]), !strcmp(words[5], "resume"));
    if (count == 4 && !strcmp(words[2], "idle"))
        return idle(atoi(words[1]), atol(words[3]));
    fprintf(stderr, "usage: handshakes PORT load SECONDS CLIENTS full|resume | handshakes PORT idle COUNT\n");
    return 2;
}
