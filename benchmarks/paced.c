/* HTTP/1.1 requests at a steady rate, whatever the answers take.
 *
 * paced ADDRESS PATH RATE SECONDS CONNECTIONS
 *     RATE requests a second, at random distances (a Poisson process), from so many connections that stay; with 0
 *     CONNECTIONS, each from a connection of its own, which the server closes. Prints "answered failed late": late are
 *     those that found every connection taken, or a thousand open.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define MOST 1000

struct client {
    int fd, busy, asked;
    long got; /* octets of the answer */
    char head[1024];
};

static struct client clients[MOST];
static int idle[MOST], idle_count, epoll;
static long answered, failed, late;
static long length; /* of every answer, once the first has come */
static char request[512];
static struct sockaddr_in server = {.sin_family = AF_INET};
static int stay;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* Of an exponential distribution with this mean; the same ones in each run. */
static double distance(double mean)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return -mean * log(((state >> 11) + 1) / 9007199254740993.0);
}

static void lose(struct client *client)
{
    close(client->fd);
    client->fd = -1;
}

static int connect_to(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET | (stay ? 0 : EPOLLOUT), .data.ptr = client};
    int one = 1;

    client->fd = socket(AF_INET, SOCK_STREAM | (stay ? 0 : SOCK_NONBLOCK), 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(client->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        return 0;
    return !epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event);
}

static int send_request(struct client *client)
{
    client->asked = 1;
    return send(client->fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request);
}

static int ask(struct client *client)
{
    client->busy = 1;
    client->asked = 0;
    client->got = 0;
    return stay ? send_request(client) : connect_to(client); /* which asks once it is connected */
}

static void finish(struct client *client, int well)
{
    answered += well;
    failed += !well;
    client->busy = 0;
    if (!stay || !well)
        lose(client);
    if (stay && !well) /* it would only fail again: the caller sees the count */
        return;
    idle[idle_count++] = client - clients;
}

/* Octets of an answer, from what begins it; 0 when that is no good one. */
static long measure(const char *head, long got)
{
    const char *end = memmem(head, got, "\r\n\r\n", 4), *field = memmem(head, got, "Content-Length: ", 16);

    if (got < 12 || memcmp(head, "HTTP/1.1 200", 12) || !end || !field)
        return 0;
    return end + 4 - head + atol(field + 16);
}

static void receive(struct client *client)
{
    static char rest[1 << 16];

    for (;;) {
        int beginning = client->got < (long)sizeof client->head;
        char *to = beginning ? client->head + client->got : rest;
        size_t room = beginning ? sizeof client->head - client->got : sizeof rest;
        ssize_t more = recv(client->fd, to, room, MSG_DONTWAIT);

        if (more < 0 && errno == EAGAIN)
            return;
        if (more > 0) {
            client->got += more;
            if (stay && !length)
                length = measure(client->head, client->got);
            if (stay && client->got == length) {
                finish(client, !memcmp(client->head, "HTTP/1.1 200", 12));
                return;
            }
            continue;
        }
        finish(client, !stay && !more && client->got && measure(client->head, client->got) == client->got);
        return;
    }
}

int main(int count, char **words)
{
    struct epoll_event events[256];
    double rate, began, due, until;
    int connections;

    if (count != 6)
        return 2;
    inet_pton(AF_INET, words[1], &server.sin_addr);
    server.sin_port = htons(80);
    rate = atof(words[3]);
    connections = atoi(words[5]);
    stay = connections > 0;
    snprintf(request, sizeof request, "GET /%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", words[2], words[1],
             stay ? "" : "Connection: close\r\n");
    epoll = epoll_create1(0);
    for (int place = (stay ? connections : MOST) - 1; place >= 0; place--) {
        if (stay && !connect_to(&clients[place]))
            return 1;
        idle[idle_count++] = place;
    }
    began = seconds();
    due = began + distance(1 / rate);
    until = began + atof(words[4]);
    for (double now = began; now < until; now = seconds()) {
        struct timespec wait = {.tv_nsec = due > now ? (due - now) * 1e9 : 0};
        int ready;

        if (due - now > 0.5)
            wait.tv_nsec = 500000000;
        ready = epoll_pwait2(epoll, events, 256, &wait, 0);
        for (int place = 0; place < ready; place++) {
            struct client *client = events[place].data.ptr;

            if (!client->busy)
                continue;
            if (!client->asked && !send_request(client))
                finish(client, 0);
            else if (events[place].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(client);
        }
        for (now = seconds(); due <= now; due += distance(1 / rate)) {
            if (!idle_count) {
                late++;
                continue;
            }
            if (!ask(&clients[idle[--idle_count]]))
                finish(&clients[idle[idle_count]], 0);
        }
    }
    printf("%ld %ld %ld\n", answered, failed, late);
    return 0;
}
